"""Queued experiments: each runs once, in its own copy of the tree, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from conftest import IDENTITY, Project

SECONDS = 300  # per experiment, until the test gives up
SOAK = 200  # experiments


def run_queue(project: Project, setting: str, experiments: int) -> str:
    """Run experiments with two workers. Return what `dvc queue status` says of the tasks."""
    project.dvc("exp", "run", "--queue", "-S", setting, **IDENTITY)
    try:
        # The workers keep their streams open, so these must not be this test's pipes. Wait for the
        # tasks, not for the workers: the first worker to end deletes the other's stop message.
        project.run("sh", "-c", '"$@" > .dvc/tmp/queue.log 2>&1', "sh",
                    "dvc", "queue", "start", "--jobs", "2", **IDENTITY)  # fmt: skip
        deadline = time.monotonic() + experiments * SECONDS
        while time.monotonic() < deadline:
            tasks, _, _ = project.dvc("queue", "status").partition("Worker status: ")
            if not re.search(r"Running|Queued", tasks):
                break
            time.sleep(1)
    finally:
        project.dvc("queue", "stop", "--kill", status=None)
        for process in processes(project):
            if "queue-worker" in (process.info["cmdline"] or ()):
                process.kill()
    return tasks


def processes(project: Project) -> list[psutil.Process]:
    """Return the processes that run in a project or in its copies for experiments."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if Path(process.info["cwd"] or "/").is_relative_to(project.folder)
    ]


def experiments(project: Project) -> list[dict]:
    """Return parameters and metrics of the finished experiments."""
    return [
        group["revs"][0]["data"]
        for revision in json.loads(project.dvc("exp", "show", "--json"))
        for group in revision["experiments"] or ()
    ]


def metrics(experiment: dict) -> dict[str, dict]:
    return {file: each["data"] for file, each in experiment["metrics"].items()}


@pytest.mark.extra
def test_two_workers_run_the_queue(clone):
    """Their figures do not mix."""
    tasks = run_queue(clone, "lstm.dense=4,5", 2)
    assert tasks.count("Success") == 2, tasks
    found = {
        each["params"]["params.yaml"]["data"]["lstm"]["dense"]: metrics(each)
        for each in experiments(clone)
    }
    assert set(found) == {4, 5}
    cnn = json.loads(clone.read("metrics/cnn.json"))
    assert all(each["metrics/cnn.json"] == cnn for each in found.values())
    lstm = json.loads(clone.read("metrics/lstm.json"))
    losses = [each["lstm"]["val"]["loss"] for each in
              (lstm, *(each["metrics/lstm.json"] for each in found.values()))]  # fmt: skip
    assert len(set(losses)) == 3


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_none_of_many_experiments_is_lost_or_run_twice(clone):
    """All in two halves, which must use about as much disk each."""
    clone.set({"epochs": 2})
    clone.dvc("repro")
    clone.commit("two epochs")
    sizes = [size(clone.folder)]
    for first in (1, 1 + SOAK // 2):
        tasks = run_queue(clone, f"seed=range({first},{first + SOAK // 2})", SOAK // 2)
        assert not re.search("Failed", tasks), tasks
        sizes.append(size(clone.folder))
    seeds = Counter(each["params"]["params.yaml"]["data"]["seed"] for each in experiments(clone))
    assert seeds == dict.fromkeys(range(1, SOAK + 1), 1)
    one, two = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert two <= 1.1 * one, f"the disk grew by {one}, then by {two} bytes"
    assert processes(clone) == []
    assert not list(clone.path(".dvc/tmp/exps").glob("tmp*")), "no copy of the tree is left"
