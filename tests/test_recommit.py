"""`make recommit`: comments and docstrings do not make results stale."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Project

from tools.recommit import changed_files, meaning

LOOP, CNN = "stages/training/loop.py", "stages/models/cnn.py"


def edit(project: Project, path: str, text: str) -> None:
    project.path(path).write_text(project.read(path) + text, encoding="utf-8")


def recommit(project: Project, status: int = 0) -> str:
    done = project.module("tools.recommit", status=status)
    return done.stdout + done.stderr


def test_comments_docstrings_and_layout_mean_nothing():
    code = b'def f(x):\n    """Old."""\n    return x + 1\n'
    same = b"def f(x):  # adds\n\n    '''New.'''\n    return (x +\n 1)\n"
    assert meaning(code) == meaning(same)
    assert meaning(code) != meaning(code.replace(b"1", b"2"))
    assert meaning(b"x = 'text'") != meaning(b"x = 'other'")


@pytest.mark.extra
def test_a_comment_is_recorded_and_a_change_of_code_is_refused(clone):
    assert "nothing to do" in recommit(clone)
    edit(clone, LOOP, "# a comment\n")
    printed = recommit(clone)
    assert "recorded without running: train_cnn, train_lstm, train_hybrid, evaluate" in printed
    assert "Running stage" not in clone.dvc("repro", "--dry")
    clone.commit("a comment")
    edit(clone, CNN, "X = 1\n")
    lock = clone.read("dvc.lock")
    assert "more than comments changed since" in recommit(clone, status=1)
    assert CNN in recommit(clone, status=1)
    assert clone.read("dvc.lock") == lock


@pytest.mark.slow
def test_parameters_and_code_that_was_never_recorded_are_refused(clone):
    clone.set({"lstm.units": [4]})
    assert "parameters or results changed for train_lstm, evaluate, report" in recommit(clone, 1)
    clone.set({})
    edit(clone, CNN, "X = 1\n")
    edit(clone, "dvc.lock", "# touched\n")
    assert "changes that are not committed" in recommit(clone, 1)
    clone.commit("a lock that does not record its code")
    assert f"does not record that commit's {CNN} for train_cnn" in recommit(clone, 1)


def test_code_that_python_cannot_read_counts_as_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recorded").mkdir()
    for name, now, then in [("same", "x = 1  # one", "x = 1"), ("broken", "x = (", "x = 1")]:
        Path(f"{name}.py").write_text(now, encoding="utf-8")
        Path(f"recorded/{name}.py").write_text(then, encoding="utf-8")
    code = ["same.py", "broken.py"]
    assert list(changed_files(code, Path("recorded"))) == ["broken.py"]
