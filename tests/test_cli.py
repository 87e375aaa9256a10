"""A command ends with one line: after a user's mistake, a system error, or Ctrl-C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from stages.common.cli import AGAIN, INTERRUPTED, MEMORY, NEARLY_FULL, RESUME, StageError, run


def ending(error: BaseException) -> str:
    """Return the line with which a command that raises `error` ends. Its exit status is 1."""

    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code  # `sys.exit` prints a text and gives status 1


def test_a_users_mistake_gives_one_printable_line_whatever_it_quotes():
    assert ending(StageError("the key is wrong")) == "error: the key is wrong"
    assert str(StageError("a\nb\x1b[31m\u2028 ç 数")) == "a b\\x1b[31m ç 数"
    assert len(str(StageError("x" * 10_000))) == 1000


def test_a_system_error_names_the_file_and_a_bug_keeps_its_traceback():
    error = FileNotFoundError(2, "No such file or directory", "a.txt")
    assert ending(error) == "error: a.txt: No such file or directory"
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "free", "hint"),
    [
        (OSError(28, "No space left on device"), 2 * NEARLY_FULL, True),
        (OSError("3 requested and 0 written"), NEARLY_FULL - 1, True),  # as NumPy and HDF5 do
        (OSError("3 requested and 0 written"), 2 * NEARLY_FULL, False),
        (OSError(13, "Permission denied"), NEARLY_FULL - 1, False),
        (OSError(27, "File too large"), 2 * NEARLY_FULL, False),
    ],
)
def test_a_full_disk_is_named_only_if_the_disk_is_full(monkeypatch, error, free, hint):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert ending(error).endswith("; the disk is full") == hint


@pytest.mark.parametrize(
    ("call", "status", "stdout", "stderr"),
    [
        ("run(lambda: print('28×28 …'))", 0, b"28\xd728 \\u2026\n", ""),  # no "…" in Latin-1
        ("run(press)", INTERRUPTED, b"", f"{AGAIN}\n"),
        ("run_stage(press)", INTERRUPTED, b"", f"{RESUME}\n"),
        ("run(lambda: bytearray(2**62))", 1, b"", f"{MEMORY}\n"),
    ],
)
def test_output_fits_the_terminal_and_ctrl_c_tells_how_to_continue(call, status, stdout, stderr):
    code = (
        "from stages.common.cli import run\nfrom stages.common.watched import run_stage\n"
        "def press(): raise KeyboardInterrupt\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + call],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.decode()) == (status, stdout, stderr)


@pytest.mark.parametrize(
    ("edited", "by", "message"),
    [
        ("stages/common/files.py", "\n", "stages/common/files.py"),
        ("stages/models/cnn.py", "\n", "stages/models/cnn.py"),
        ("stages/models/lstm.py", "\n", ""),  # not a dependency of train_cnn
        ("stages/common/.#cli.py", "\n", ""),  # of an editor
        ("params.yaml", "epochs: 9", "epochs in params.yaml"),
        ("params.yaml", "epochs: 4.0", ""),  # the same value
        ("params.yaml", "lstm: {units: [9]}", ""),
    ],
)
def test_a_stage_fails_if_it_is_edited_meanwhile(project, edited, by, message):
    """DVC reads code and parameters when a stage ends. The stage then leaves out its last step."""
    project.path("stages/slow.py").write_text(
        f"""
from pathlib import Path
import yaml
from stages.common.watched import run_stage
def main():
    path = Path({edited!r})
    text = path.read_text() if path.exists() else ""
    document = yaml.safe_load(text) if path.suffix == ".yaml" else {{}}
    for key, value in (yaml.safe_load({by!r}) or {{}}).items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(document) if document else text + {by!r})
    return lambda: print("finished")
run_stage(main)
"""
    )
    dvc_yaml = project.read("dvc.yaml").replace("stages.train cnn", "stages.slow")
    project.path("dvc.yaml").write_text(dvc_yaml, encoding="utf-8")
    done = project.stage("slow", status=1 if message else 0)
    assert done.stdout == ("" if message else "finished\n")
    expected = f"error: {message} was edited while this stage ran, so dvc.lock would record the new"
    assert done.stderr.startswith(expected if message else "")
    assert bool(done.stderr) == bool(message)
