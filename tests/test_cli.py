"""A command ends with one line: after a user's mistake, a system error, or Ctrl-C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from stages.common.cli import AGAIN, INTERRUPTED, NEARLY_FULL, RESUME, StageError, run


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
    ],
)
def test_output_fits_the_terminal_and_ctrl_c_tells_how_to_continue(call, status, stdout, stderr):
    code = "from stages.common.cli import run, run_stage\ndef press(): raise KeyboardInterrupt\n"
    done = subprocess.run(
        [sys.executable, "-c", code + call],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.decode()) == (status, stdout, stderr)


@pytest.mark.parametrize(
    ("edited", "used"),
    [
        ("common/files.py", True),
        ("reporting/templates/report.css", True),
        ("models/lstm.py", False),
    ],
)
def test_a_stage_fails_if_code_that_it_uses_is_edited_meanwhile(project, edited, used):
    script = f"""
from pathlib import Path
import stages.common.files, stages.reporting.sentences
from stages.common.cli import run_stage
def main():
    with Path("stages/{edited}").open("a") as file:
        file.write("\\n")
run_stage(main)
"""
    done = project.run(sys.executable, "-c", script, status=1 if used else 0)
    message = f"error: stages/{edited} was edited while this stage ran"
    assert done.stderr.startswith(message if used else "")
    assert bool(done.stderr) == used
