"""Trouble from outside ends in the right figures or in one clear line, never in wrong figures.

Failed downloads are in test_datasets.py, damaged models and arrays in test_archive.py,
test_evaluate.py and test_prepare.py.
"""

from __future__ import annotations

import json
import re
import sys
import time

import psutil
import pytest
from conftest import IDENTITY, Project, names

from stages import report
from stages.common.cli import StageError

WAIT = 600  # seconds
LIMITED = (  # run a module that can write at most so many bytes to one file
    "import os, resource, sys; size = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size));"
    "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[2:]])"
)


@pytest.mark.extra
def test_two_workers_run_the_queue(clone):
    """Each works in its own copy of the tree, so their figures do not mix."""
    clone.dvc("exp", "run", "--queue", "-S", "lstm.dense=4,5", **IDENTITY)
    try:
        # The workers keep their streams open, so these must not be this test's pipes. Wait for the
        # tasks, not for the workers: the first worker to end deletes the other's stop message.
        clone.run("sh", "-c", '"$@" > .dvc/tmp/queue.log 2>&1', "sh",
                  "dvc", "queue", "start", "--jobs", "2", **IDENTITY)  # fmt: skip
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            tasks, _, _ = clone.dvc("queue", "status").partition("Worker status: ")
            if not re.search(r"Running|Queued", tasks):
                break
            time.sleep(1)
    finally:
        clone.dvc("queue", "stop", "--kill", status=None)
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or ()
            if process.info["cwd"] == str(clone.folder) and "queue-worker" in words:
                process.kill()
    assert tasks.count("Success") == 2, tasks
    found = {}
    for revision in json.loads(clone.dvc("exp", "show", "--json")):
        for group in revision["experiments"] or ():
            data = group["revs"][0]["data"]
            dense = data["params"]["params.yaml"]["data"]["lstm"]["dense"]
            found[dense] = {file: metrics["data"] for file, metrics in data["metrics"].items()}
    assert set(found) == {4, 5}
    cnn = json.loads(clone.read("metrics/cnn.json"))
    assert all(metrics["metrics/cnn.json"] == cnn for metrics in found.values())
    lstm = json.loads(clone.read("metrics/lstm.json"))
    losses = [each["lstm"]["val"]["loss"] for each in
              (lstm, *(metrics["metrics/lstm.json"] for metrics in found.values()))]  # fmt: skip
    assert len(set(losses)) == 3


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
