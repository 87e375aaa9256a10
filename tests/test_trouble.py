"""Trouble from outside: it ends in the right figures or in one clear line, never in wrong figures.

Downloads gone wrong are in test_datasets.py and test_pipeline.py, read-only folders in
test_pipeline.py, damaged models and arrays in test_evaluate.py, test_archive.py, test_prepare.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from conftest import Project, names

from stages import report, results
from stages.files import StageError

FIGURES = ("metrics/evaluation.json", "metrics/train", "plots/confusion", "plots/history",
           "plots/per_class", "plots/calibration")  # fmt: skip
BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked")
WAIT = 600  # seconds
LIMITED = (
    "import os, resource, sys; size = int(sys.argv[1]);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size));"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def one_line(stderr: str) -> str:
    """Return a stage's one line."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


def forget(project: Project) -> None:
    """Remove what was made, the lock and the run cache: everything has to run again."""
    shutil.rmtree(project.path("data"))
    shutil.rmtree(project.path(".dvc/cache/runs"))
    project.path("dvc.lock").unlink()


def assert_the_committed_figures(project: Project) -> None:
    assert project.run("git", "diff", "--stat", "HEAD", "--", *FIGURES).stdout == ""


def test_two_repros_at_once_give_the_right_figures_or_say_that_another_runs(clone):
    forget(clone)
    both = [
        subprocess.Popen(
            ["dvc", "repro"], cwd=clone.folder, env=clone.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        said, _ = process.communicate(timeout=WAIT)
        assert process.returncode == 0 or BUSY.search(said), said
    clone.dvc("repro")
    assert "up to date" in clone.dvc("status", "dvc.yaml")  # the studies have their own state
    assert_the_committed_figures(clone)


def test_two_workers_run_the_queue(clone):
    """Each in a copy of the tree; the figures of one do not end up in the other's."""
    author = clone.run("make", "-s", "--eval=show: ; @echo $(AUTHOR)", "show").stdout.split()
    clone.run(*author, "dvc", "exp", "run", "--queue", "-S", "lstm.dense=4,5")
    try:
        # The workers keep the streams that they are given, so these must not be this test's pipes;
        # and the tasks are waited for, not the workers: the first to end cleans the queue's folder,
        # with the message that should end the other one, if that has not read it yet.
        clone.run("sh", "-c", '"$@" > .dvc/tmp/queue.log 2>&1', "sh", *author,
                  "dvc", "queue", "start", "--jobs", "2")  # fmt: skip
        ended = time.monotonic() + WAIT
        while time.monotonic() < ended:
            tasks, _, _ = clone.dvc("queue", "status").partition("Worker status: ")
            if not re.search(r"Running|Queued", tasks):
                break
            time.sleep(1)
    finally:
        clone.dvc("queue", "stop", "--kill", status=None)
        for process in psutil.process_iter(["cmdline", "cwd"]):
            if process.info["cwd"] == str(clone.folder) and "queue-worker" in (
                process.info["cmdline"] or ()
            ):
                process.kill()
    assert tasks.count("Success") == 2, tasks
    shown = json.loads(clone.dvc("exp", "show", "--json"))
    found = {}
    for row in (
        run for rev in shown for group in rev["experiments"] or () for run in group["revs"]
    ):
        data = row["data"]
        dense = data["params"]["params.yaml"]["data"]["lstm"]["dense"]
        found[dense] = {file: metrics["data"] for file, metrics in data["metrics"].items()}
    assert set(found) == {4, 5}
    parameters = {dense: found[dense]["metrics/train/lstm.json"]["parameters"] for dense in found}
    assert parameters[5] - parameters[4] == (8 + 1) + 10  # a unit's weights in and out
    for metrics in found.values():
        assert metrics["metrics/train/cnn.json"] == json.loads(clone.read("metrics/train/cnn.json"))


# --- a full disk --------------------------------------------------------------------------


def limited(
    project: Project, size: int, stage: str, *arguments: str
) -> subprocess.CompletedProcess:
    """Run a stage that can write no more than `size` bytes to any one file."""
    words = ("-m", f"stages.{stage}", *arguments)
    return project.run(sys.executable, "-c", LIMITED, str(size), *words, status=None)


FULL = [  # stage, bytes that fit, what must be as it was
    (("prepare",), 100_000, "data/prepared"),
    (("train", "cnn"), 10_000, "data/models"),
    (("evaluate",), 5_000, "metrics"),
    (("report",), 20_000, "plots"),
]


@pytest.mark.parametrize(("stage", "size", "kept"), FULL, ids=[stage[0] for stage, _, _ in FULL])
def test_a_full_disk_ends_in_one_line_and_leaves_what_was_there(clone, stage, size, kept):
    def files() -> dict[str, bytes]:
        return {
            str(path.relative_to(clone.folder)): path.read_bytes()
            for path in sorted(clone.path(kept).rglob("*"))
            if path.is_file()
        }

    before = files()
    done = limited(clone, size, *stage)
    assert done.returncode == 1, done.stderr
    line = one_line(done.stderr)
    assert "File too large" in line or "disk full" in line
    after = files()
    assert set(after) == set(before), "no temporary file is left"
    changed = [name for name in before if after[name] != before[name]]
    assert [name for name in changed if "timing" not in name] == [], "what it writes is the same"
    for name in changed:
        json.loads(after[name])
    assert set(names(clone.path("data"))) - {"checkpoints"} == {"models", "predictions", "prepared"}
    assert not [path for path in clone.path("data").rglob(".*-*") if path.is_file()]


# --- a last batch of one image ------------------------------------------------------------


def test_a_last_batch_of_one_image_trains(clone):
    """In two parts one would be empty, and the mean that batch normalization takes of it NaN."""
    images = json.loads(clone.read("data/prepared/manifest.json"))["splits"]["train"]["images"]
    size = next(size for size in range(128, images) if images % size == 1)
    clone.set({"train.batch_size": size, "cnn.batch_norm": True})
    clone.stage("train", "cnn")
    assert json.loads(clone.read("metrics/timing/cnn.json"))["threads"]["batch_parts"] == 1
    assert json.loads(clone.read("metrics/train/cnn.json"))["val"]["loss"] < 10


# --- half-written files -------------------------------------------------------------------

HALVES = [
    "metrics/evaluation.json", "metrics/train/lstm.json", "metrics/timing/cnn.json",
    "plots/history/lstm.csv", "plots/per_class/cnn.csv", "data/prepared/manifest.json",
    "data/predictions/cnn.npy", "data/predictions/details.json", "data/prepared/x_test.npy",
]  # fmt: skip


def halve(project: Project, name: str) -> bytes:
    """Cut a file in half; return what it held."""
    path = project.path(name)
    content = path.read_bytes()
    path.unlink()  # it may be a link into DVC's cache
    path.write_bytes(content[: len(content) // 2])
    return content


def test_the_report_refuses_every_half_written_file(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    table = clone.read("metrics/results.csv")
    for name in HALVES:
        content = halve(clone, name)
        with pytest.raises(StageError, match=re.escape(name)):
            report.main()
        assert clone.read("metrics/results.csv") == table
        clone.path(name).write_bytes(content)
    report.main()  # nothing else was wrong


def test_repro_puts_half_written_outputs_right(clone):
    cut = ("metrics/train/lstm.json", "plots/history/cnn.csv", "data/models/hybrid.keras")
    contents = {name: halve(clone, name) for name in cut}
    clone.dvc("repro")
    for name, content in contents.items():
        assert clone.path(name).read_bytes() == content
    assert_the_committed_figures(clone)


def test_half_a_table_is_not_shown(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone.folder)
    halve(clone, "metrics/results.csv")
    with pytest.raises(StageError, match=r"metrics/results\.csv is not a whole CSV"):
        results.main()
    assert capsys.readouterr().out == ""
