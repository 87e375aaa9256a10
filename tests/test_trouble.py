"""Trouble from outside ends in the right figures or in one clear line, never in wrong figures.

Failed downloads are in test_datasets.py, damaged models and arrays in test_archive.py,
test_evaluate.py and test_prepare.py.
"""

from __future__ import annotations

import json
import re
import sys

import pytest
from conftest import Project, names

from stages import report
from stages.common.cli import StageError

LIMITED = (  # run a module that can write at most so many bytes to one file
    "import os, resource, sys; size = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size));"
    "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[2:]])"
)


@pytest.mark.extra
@pytest.mark.parametrize(
    ("words", "size", "kept"),
    [
        ("prepare", 100_000, "data/prepared"),
        ("train cnn", 10_000, "data/models"),
        ("evaluate", 5_000, "metrics"),
        ("report", 20_000, "plots"),
    ],
)
def test_a_full_disk_ends_in_one_line_and_keeps_the_old_files(clone, words, size, kept):
    """Simulated by a limit on the size of files."""

    def files() -> dict[str, bytes]:
        paths = [path for path in clone.path(kept).rglob("*") if path.is_file()]
        return {str(path.relative_to(clone.folder)): path.read_bytes() for path in paths}

    before = files()
    stage, *model = words.split()
    done = clone.run(sys.executable, "-c", LIMITED, str(size), f"stages.{stage}", *model, status=1)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"File too large|\d requested and \d+ written", lines[0])
    after = files()
    assert set(after) == set(before), "no temporary file is left"
    changed = [name for name in before if after[name] != before[name]]
    assert [name for name in changed if "timing" not in name] == []
    assert all(json.loads(after[name]) for name in changed)
    assert set(names(clone.path("data"))) - {"checkpoints"} == {
        "models", "predictions", "prepared", "raw", "timing"
    }  # fmt: skip
    assert not list(clone.path("data").rglob(".*-*"))


# --- incomplete files ---------------------------------------------------------------------


def halve(project: Project, name: str) -> bytes:
    """Cut a file in half. Return its old content."""
    path = project.path(name)
    content = path.read_bytes()
    path.unlink()  # DVC may have linked it to its cache
    path.write_bytes(content[: len(content) // 2])
    return content


def test_the_report_refuses_every_incomplete_file(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    table = clone.read("metrics/results.csv")
    for name in (
        "metrics/test.json", "metrics/lstm.json", "data/timing/cnn.json",
        "plots/history/lstm.csv", "plots/per_class.csv", "data/prepared/manifest.json",
        "data/predictions/cnn.npy", "data/predictions/details.json", "data/prepared/x_test.npy",
    ):  # fmt: skip
        content = halve(clone, name)
        with pytest.raises(StageError, match=re.escape(name)):
            report.main()
        assert clone.read("metrics/results.csv") == table
        clone.path(name).write_bytes(content)
    report.main()  # nothing else was wrong
