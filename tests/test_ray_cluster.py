"""Studies on a real Ray cluster: a node that fails jobs, and nodes that are killed."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, Project
from test_study import rows, write_study

from studies.engine.pool import connected, has_ray, run_jobs

if not has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)

pytestmark = [pytest.mark.extra, pytest.mark.usefixtures("ray_turn")]


class Nodes:
    """A running cluster of some nodes with one core each."""

    def __init__(self, number: int, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/ray_cluster.py"), str(number)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    def kill_one(self, order: str = "kill") -> None:
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run trials now."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        found = []
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if child.name().startswith("ray::") and "IDLE" not in child.name():
                    found.append(child)
        return found


@pytest.fixture
def nodes(request, environment, monkeypatch):
    """The cluster to which `connected` connects; the parameter is its number of nodes."""
    cluster = Nodes(request.param, environment)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("HOME", environment["HOME"])
    yield cluster
    cluster.process.communicate(timeout=60)


@pytest.fixture
def connection(nodes):  # noqa: ARG001
    with connected(store_bytes=2**20):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [3], indirect=True)
@pytest.mark.usefixtures("connection")
def test_jobs_that_fail_on_one_node_are_tried_again_on_all_others():
    import ray

    broken, *good = (node["NodeID"] for node in ray.nodes())

    def work(job, log):
        import ray

        log(f"job {job}")
        if ray.get_runtime_context().get_node_id() == broken:
            raise OSError("no space left on this node")
        time.sleep(1)
        return {"square": job**2}

    steps = run_jobs(range(12), work, lambda job: [])  # noqa: ARG005
    ended = [outcome for progress in steps for outcome in progress.ended]
    assert {outcome.job: outcome.result for outcome in ended} == {
        job: {"square": job**2} for job in range(12)
    }
    retried = [outcome.node for outcome in ended if outcome.attempts > 1]
    assert len(retried) > 1, "the broken node had several jobs"
    assert set(retried) == set(good)


@pytest.mark.parametrize("nodes", [2], indirect=True)
@pytest.mark.usefixtures("connection")
def test_jobs_spread_over_two_nodes_and_outlive_one(nodes, tmp_path):
    def work(job, log):
        """Take a while. The first job on each node waits until the other node works too."""
        import ray

        log(f"job {job}")
        (tmp_path / ray.get_runtime_context().get_node_id()).touch()
        until = time.monotonic() + 100
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)
        return {"square": job**2}

    ended, before = [], 0
    for progress in run_jobs(range(10), work, lambda job: []):  # noqa: ARG005
        ended += progress.ended
        if not before and len({outcome.node for outcome in ended}) == 2:
            before = len(ended)
            nodes.kill_one()
    assert before, "both nodes worked"
    assert {outcome.job: outcome.result for outcome in ended} == {
        job: {"square": job**2} for job in range(10)
    }
    after = [outcome.node for outcome in ended[before + 2 :]]  # two may have been ending
    assert len(after) > 2
    assert len(set(after)) == 1, "one node was left"


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_a_study_with_a_killed_node_gives_the_results_of_one_machine(nodes, project):
    grid = {"dataset": ["digits"], "model": ["lstm", "cnn"], "seed": [1, 2, 3, 4]}
    path = write_study(project, grid=grid, evaluate="val")
    alone = results_alone(project, path)
    process = start(project, path, nodes)
    while len(finished(project)) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    nodes.kill_one()
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    assert untimed(project) == alone


def untimed(project: Project) -> list[dict[str, str]]:
    """Return the study's rows without seconds."""
    timed = {"train_seconds", "seconds_per_epoch"}
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(project)]


def finished(project: Project) -> list[Path]:
    return list(project.path("studies/trials").glob("[!.]*.json"))


def results_alone(project: Project, path: str) -> list[dict[str, str]]:
    """Run a study on this machine without a cluster, forget its trials, and return its rows."""
    project.module("studies.engine", path, "--yes")
    for file in finished(project):
        file.unlink()
    return untimed(project)


def start(project: Project, path: str, nodes: Nodes) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "studies.engine", path, "--yes"],
        cwd=project.folder, env=project.environment | {"RAY_ADDRESS": nodes.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_thirty_kills_do_not_change_the_results_of_a_study(nodes, project):
    """Workers, nodes and the driver are killed at random moments; the study is started again."""
    grid = {"dataset": ["digits"], "model": ["lstm", "cnn"], "seed": [1, 2, 3, 4, 5, 6]}
    path = write_study(project, grid=grid, evaluate="val")
    alone = results_alone(project, path)
    seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
    print(f"KILL_SEED={seed} repeats these moments")
    random = np.random.default_rng(seed)
    left = ["worker", "node", "driver"] * 10
    random.shuffle(left)
    driver = start(project, path, nodes)
    while left:
        time.sleep(random.uniform(0.2, 8))
        if driver.poll() is not None:  # the end, perhaps without trials that were killed too often
            assert driver.returncode in (0, 1, -signal.SIGKILL), driver.communicate()[0]
            for file in finished(project)[:6] if driver.returncode == 0 else ():
                file.unlink()  # more work
            driver.communicate()
            driver = start(project, path, nodes)
        elif left[-1] == "driver":
            driver.kill()
            left.pop()
        elif left[-1] == "node":
            nodes.kill_one("replace")
            left.pop()
        elif workers := nodes.workers():
            workers[int(random.integers(len(workers)))].kill()
            left.pop()
    printed = driver.communicate(timeout=600)[0]
    for _ in range(3):
        if driver.returncode:
            driver = start(project, path, nodes)
            printed = driver.communicate(timeout=600)[0]
    assert driver.returncode == 0, printed
    assert untimed(project) == alone
