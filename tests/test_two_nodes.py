"""Studies on a real Ray cluster of two nodes, one of which is killed in the middle."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from conftest import ROOT
from test_study import rows, write_study

from stages.study.cluster import connected, has_ray, run_jobs

if not has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)


@pytest.fixture
def two_nodes(environment):
    """A running cluster: its process, with `address` and a function that kills a node."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/two_nodes.py")],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip

    def kill_one() -> None:
        process.stdin.write("now\n")
        process.stdin.flush()
        assert process.stdout.readline() == "killed\n"

    process.address = process.stdout.readline().strip()
    assert process.address, "the cluster did not start"
    process.kill_one = kill_one
    yield process
    process.communicate(timeout=60)


def test_jobs_spread_over_two_nodes_and_outlive_one(two_nodes, environment, monkeypatch, tmp_path):
    def work(job, log):
        """Take a while; each node's first job waits until the other node works too."""
        import ray

        log(f"job {job}")
        (tmp_path / ray.get_runtime_context().get_node_id()).touch()
        until = time.monotonic() + 100
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)
        return {"square": job**2}

    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    monkeypatch.setenv("HOME", environment["HOME"])
    nodes_before = []

    def kill_one_in_the_middle(progress):
        nodes = {outcome.node for outcome in progress.ended}
        if len(nodes) == 2 and not nodes_before:
            nodes_before.extend(outcome.node for outcome in progress.ended)
            two_nodes.kill_one()

    with connected(store_bytes=2**20):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ended = run_jobs(range(10), work, lambda job: [], on_change=kill_one_in_the_middle)  # noqa: ARG005
    assert len(set(nodes_before)) == 2, "both nodes had worked"
    assert {outcome.job: outcome.result for outcome in ended} == {
        job: {"square": job**2} for job in range(10)
    }
    after = [outcome.node for outcome in ended[len(nodes_before) + 2 :]]  # two may have been ending
    assert len(after) > 2
    assert len(set(after)) == 1, "one node was left"


@pytest.mark.slow
def test_a_study_on_two_nodes_ends_as_on_one_machine_when_a_node_is_killed(two_nodes, project):
    grid = {"dataset": ["digits"], "model": ["lstm", "cnn"], "seed": [1, 2, 3, 4]}
    path = write_study(project, grid=grid, evaluate="val")
    project.stage("study", path)
    alone = rows(project)
    trials = project.path("studies/trials")
    for file in trials.iterdir():
        file.unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.study", path],
        cwd=project.folder, env=project.environment | {"RAY_ADDRESS": two_nodes.address},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while len(list(trials.glob("[!.]*.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    two_nodes.kill_one()
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    timed = {"train_seconds", "seconds_per_epoch"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in rows(project)] == [
        {k: v for k, v in row.items() if k not in timed} for row in alone
    ]
    assert "accuracy" not in alone[0]
    assert float(alone[0]["val_accuracy"]) > 0
