"""Files are written whole or not at all, and a user's mistake ends in one line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from conftest import ROOT, names

from stages.files import (
    INTERRUPTED,
    StageError,
    read_csv,
    read_json,
    replacing,
    run,
    write_csv,
    write_json,
    write_text,
)


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename is atomic only within one file system"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.txt"]


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as temporary:
        temporary.write_text("new, but only")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_written_file_is_readable_by_others(tmp_path):
    write_text(tmp_path / "file.txt", "x")
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o644


def test_json_comes_back_as_it_was_and_ends_with_a_newline(tmp_path):
    value = {"name": "Übung", "figures": [0.1, 2, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_json_that_others_could_not_read_is_not_written(tmp_path, bad):
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"loss": bad})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}


@pytest.mark.parametrize("content", ["", '{"loss": 1', "[1,"])
def test_json_that_was_cut_short_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StageError, match=r"a\.json is not whole JSON"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_named(tmp_path):
    with pytest.raises(StageError, match=r"a\.json is missing; `dvc repro` makes it"):
        read_json(tmp_path / "a.json")


def test_csv_has_a_header_and_the_same_line_ends_everywhere(tmp_path):
    write_csv(tmp_path / "a.csv", [{"a": 1, "b": "x,y"}, {"a": 2, "b": 'say "é"'}])
    assert (tmp_path / "a.csv").read_bytes() == 'a,b\n1,"x,y"\n2,"say ""é"""\n'.encode()


def test_csv_rows_have_one_set_of_columns(tmp_path):
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(tmp_path / "a.csv", [{"a": 1}, {"b": 2}])
    assert names(tmp_path) == []


def test_a_users_mistake_is_one_line_and_status_1():
    def main():
        raise StageError("the key is wrong")

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == "error: the key is wrong"  # sys.exit prints it and gives status 1


def test_what_the_terminals_encoding_lacks_is_printed_as_an_escape():
    done = subprocess.run(
        [sys.executable, "-c", "from stages.files import run; run(lambda: print('28×28 …'))"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"28\xd728 \\u2026\n"


def test_an_error_of_the_system_names_the_file(tmp_path):
    with pytest.raises(SystemExit) as ended:
        run((tmp_path / "none").read_text)
    assert ended.value.code == f"error: {tmp_path / 'none'}: No such file or directory"


def test_a_message_is_one_line_whatever_it_quotes():
    assert str(StageError("a\nb\x1b[31m\u2028 ç 数")) == "a\\nb\\x1b[31m\\u2028 ç 数"
    assert len(str(StageError("x" * 10_000))) == 1000


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n3", "a,b\n1,2\n3\n", "a,b\n1,2\n3,4", "a,b\n1,2,3\n", 'a,b\n1,"2\n']
)
def test_a_csv_that_was_cut_short_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(StageError, match=r"a\.csv is not a whole CSV"):
        read_csv(tmp_path / "a.csv")


def test_csv_comes_back_as_it_was(tmp_path):
    rows = [{"a": "1", "b": "x,\u2028y"}, {"a": "", "b": 'say "é"'}]
    write_csv(tmp_path / "a.csv", rows)
    assert read_csv(tmp_path / "a.csv") == rows


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("3 requested")])
def test_a_full_disk_is_said_to_be_one(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert str(ended.value.code).endswith("; is the disk full?")


def test_a_mistake_of_the_programmers_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_an_interrupt_says_how_to_go_on():
    script = "from stages.files import run\ndef main(): raise KeyboardInterrupt\nrun(main)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == INTERRUPTED
    assert len(done.stderr.splitlines()) == 1
    assert "dvc repro" in done.stderr
