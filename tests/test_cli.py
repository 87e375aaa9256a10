"""A command ends with one line: after a user's mistake, a system error, or Ctrl-C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from conftest import ROOT

from stages.common.cli import INTERRUPTED, NEARLY_FULL, RESUME, StageError, run


def python(script: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )


def ending(error: BaseException) -> str:
    """Return the line with which a command ends that raises `error`. Its exit status is 1."""

    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code  # `sys.exit` prints a text and gives status 1


def test_a_users_mistake_gives_one_line():
    assert ending(StageError("the key is wrong")) == "error: the key is wrong"


def test_a_message_is_one_printable_line_whatever_it_quotes():
    assert str(StageError("a\nb\x1b[31m\u2028 ç 数")) == "a b\\x1b[31m ç 数"
    assert len(str(StageError("x" * 10_000))) == 1000


def test_a_system_error_names_the_file(tmp_path):
    with pytest.raises(SystemExit) as ended:
        run((tmp_path / "none").read_text)
    assert ended.value.code == f"error: {tmp_path / 'none'}: No such file or directory"


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
    usage = namedtuple("Usage", "free")(free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert ending(error).endswith("; the disk is full") == hint


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_characters_that_the_terminal_lacks_are_printed_as_escapes():
    script = "from stages.common.cli import run; run(lambda: print('28×28 …'))"
    assert python(script, PYTHONIOENCODING="latin-1").stdout == b"28\xd728 \\u2026\n"


def test_ctrl_c_tells_how_to_continue():
    script = "from stages.common.cli import run\ndef main(): raise KeyboardInterrupt\nrun(main)"
    done = python(script)
    assert (done.returncode, done.stderr.decode()) == (INTERRUPTED, f"{RESUME}\n")
