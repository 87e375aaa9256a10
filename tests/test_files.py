"""Files appear complete or not at all, and damaged files are named."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import pytest
from conftest import names

from stages.common import files
from stages.common.arrays import array_digest, read_array, read_split, write_array
from stages.common.cli import StageError
from stages.common.files import holding, read_csv, read_json, replacing


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".txt", "NumPy and Keras choose the format by it"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as temporary:
        temporary.write_text("new, but only")
        raise RuntimeError("halfway")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["file.txt"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    others = [".a.txt-backup", ".b.txt-a1b2c3d4", ".a.txt-a1b2c3d5"]
    for name in (".a.txt-a1b2c3d4", *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("half")
    with holding(tmp_path / ".a.txt-a1b2c3d5"):  # as a running process does
        files.write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == sorted([*others, "a.txt"])


def test_another_process_cannot_remove_a_new_temporary_folder(tmp_path, monkeypatch):
    """Before its lock, the folder looks like a leftover. Others must wait to look for leftovers."""
    create, found = tempfile.TemporaryDirectory, []

    def interfered(**options):
        folder = create(**options)
        with holding(tmp_path) as free:  # as another process would
            found.append(free)
        return folder

    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", interfered)
    with files.temporary_folder(tmp_path, ".x-") as folder:
        files.remove_leftovers(tmp_path, ".x-")
        assert folder.exists()
    assert found == [False]
    assert names(tmp_path) == []


def test_json_and_csv_are_read_as_they_were_written(tmp_path):
    value = {"name": "Übung", "figures": [0.1, 2, None]}
    files.write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "a.json", {"loss": bad})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    rows = [{"a": "1", "b": "x,\u2028y"}, {"a": "", "b": 'say "é"'}]
    files.write_csv(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_bytes() == 'a,b\n1,"x,\u2028y"\n,"say ""é"""\n'.encode()
    assert read_csv(tmp_path / "a.csv") == rows


CUT_CSV = ["a,b\n1,2\n3", "a,b\n1,2\n3\n", "a,b\n1,2\n3,4", "a,b\n1,2,3\n", 'a,b\n1,"2\n']
BAD = [
    *(("json", read_json, text, "is not valid JSON") for text in ("", '{"loss": 1', "[1,")),
    *(("csv", read_csv, text, "is not a complete CSV file") for text in CUT_CSV),
    *(("npy", read_array, text, "is not a complete array") for text in ("no array", None)),
    *((name, read, None, "is missing") for name, read in (("json", read_json), ("csv", read_csv))),
]


@pytest.mark.parametrize(("suffix", "read", "content", "problem"), BAD)
def test_a_damaged_or_missing_file_is_named(tmp_path, suffix, read, content, problem):
    path = tmp_path / f"a.{suffix}"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(StageError, match=rf"a\.{suffix} {problem}.* `dvc repro`"):
        read(path)


def test_arrays_are_read_as_they_were_written(tmp_path):
    images, labels = np.arange(600, dtype=np.uint8).reshape(6, 10, 10, 1), np.arange(6)
    write_array(tmp_path / "x_val.npy", images)
    write_array(tmp_path / "y_val.npy", labels)
    data = read_split("val", tmp_path)
    assert isinstance(data.x, np.memmap)
    data.release()
    assert np.array_equal(data.x, images)
    assert np.array_equal(data.y, labels)
    (tmp_path / "x_val.npy").write_bytes((tmp_path / "x_val.npy").read_bytes()[:-1])
    with pytest.raises(StageError, match=r"x_val\.npy is not a complete array"):
        read_split("val", tmp_path)


def test_a_digest_is_the_sha_256_of_the_bytes_in_c_order():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = "17e88db187afd62c16e5debf3e6527cd006bc012bc90b51a810cd80c2d511f43"  # sha256sum
    assert array_digest(array) == array_digest(np.asfortranarray(array)) == expected
    assert array_digest(array.T) != expected
