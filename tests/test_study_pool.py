"""Jobs on Ray: retries, isolation from later edits, and which addresses listen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import psutil
import pytest

from stages.common.cli import StageError
from studies.engine import pool
from studies.engine.pool import ATTEMPTS, connected, retry_node, run_jobs

# Tests import Ray inside functions: `connected` sets environment variables for it first.
if not pool.has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)


@pytest.fixture(scope="module")
def before_ray() -> set[str]:
    """The addresses that listened before Ray started."""
    return listening()


@pytest.fixture(scope="module")
def local(before_ray, ray_turn):  # noqa: ARG001
    """Ray on this machine, as a study starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with connected(store_bytes=2**20):
            from ray import cloudpickle

            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield


def listening() -> set[tuple[str, int]]:
    """Return the addresses and ports on which this machine listens."""
    found = psutil.net_connections(kind="tcp")
    return {tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN}


def run_all(jobs, work, arrays=lambda job: [], **options):  # noqa: ARG005
    """Run jobs and return their outcomes by job. Each job ends once."""
    *_, last = steps = list(run_jobs(jobs, work, arrays, **options))
    assert (last.waiting, last.running) == (0, 0)
    ended = [outcome for progress in steps for outcome in progress.ended]
    assert len(ended) == len(jobs)
    return {outcome.job: outcome for outcome in ended}


@pytest.mark.parametrize(
    ("failed_on", "retries", "node"),
    [
        (["a"], {}, "b"),
        (["a"], {"b": 1}, "c"),
        (["a"], {"b": 1, "c": 2}, "b"),  # c has two slots, but b comes first
        (["a", "b"], {"c": 9}, "c"),
        ([""], {"a": 1, "b": 1}, "c"),  # the worker died, and nobody knows where it ran
        (["a", "b", "c"], {}, None),
    ],
)
def test_a_retry_goes_to_another_node_with_few_retries(failed_on, retries, node):
    assert retry_node(failed_on, {"a": 1, "b": 1, "c": 2}, retries) == node


def test_retries_spread_over_the_other_nodes():
    retries: Counter[str] = Counter()
    for _ in range(9):
        retries[retry_node(["a"], {"a": 1, "b": 1, "c": 2}, retries)] += 1
    assert retries == {"b": 3, "c": 6}, "in proportion to their slots"


@pytest.mark.extra
def test_nothing_listens_beyond_loopback(before_ray, local):  # noqa: ARG001
    def work(job, log):
        log(f"job {job}")
        return {"listening": listening()}

    from_worker = run_all([1], work)[1].result["listening"]
    ours = (listening() | from_worker) - before_ray
    assert len(ours) >= 3, "Ray listens somewhere"
    ips = {ip.removeprefix("::ffff:") for ip, _ in ours}  # IPv4 addresses on IPv6 sockets
    assert [ip for ip in ips if not ip_address(ip).is_loopback] == []


@pytest.mark.extra
@pytest.mark.usefixtures("local")
def test_every_job_has_its_own_process_its_log_and_a_copy_of_the_code():
    def work(job, log):
        import studies.engine.trial

        log(f"job {job}")
        return {"process": os.getpid(), "file": studies.engine.trial.__file__}

    outcomes = run_all(range(4), work)
    assert len({outcome.result["process"] for outcome in outcomes.values()}) == 4
    assert [outcomes[job].log for job in range(4)] == [f"job {job}\n" for job in range(4)]
    file = Path(outcomes[0].result["file"])
    assert file.name == "trial.py"
    assert not file.is_relative_to(pool.ROOT)


@pytest.mark.extra
@pytest.mark.usefixtures("local")
def test_a_failed_job_is_tried_again_in_another_process(tmp_path):
    def work(job, log):
        marks = tmp_path / str(job)
        marks.mkdir(exist_ok=True)
        (marks / str(os.getpid())).touch()
        tries = len(list(marks.iterdir()))
        if job == "lucky" and tries == 1:
            raise ValueError("not yet")
        if job == "dying" and tries == 1:
            os._exit(7)
        if job == "hopeless":
            raise StageError("never")
        if job == "moody":
            raise ValueError(f"reason {tries}")
        log("fine")
        return {"tries": tries}

    outcomes = run_all(["lucky", "hopeless", "good", "moody", "dying"], work)
    assert outcomes["good"].result == {"tries": 1}
    assert (outcomes["lucky"].result, outcomes["lucky"].attempts) == ({"tries": 2}, 2)
    assert outcomes["dying"].result == {"tries": 2}
    assert outcomes["hopeless"].result is None
    assert (outcomes["hopeless"].error, outcomes["hopeless"].attempts) == ("never", 2)
    assert (outcomes["moody"].error, outcomes["moody"].attempts) == (
        f"ValueError: reason {ATTEMPTS}", ATTEMPTS,
    )  # fmt: skip
    assert "Traceback" in outcomes["hopeless"].log


@pytest.mark.extra
@pytest.mark.usefixtures("local")
def test_shared_arrays_are_stored_once_and_arrive_unchanged():
    import ray

    shared = [np.arange(100_000, dtype=np.uint8).reshape(10, 100, 100), np.arange(10)]

    def work(job, x, y, log):
        log(f"{x.dtype} {x.shape}")
        return {"sum": int(x[job].astype(int).sum()), "y": int(y[job]), "own": x.flags.owndata}

    before = ray.available_resources()["object_store_memory"]
    outcomes = run_all(range(4), work, arrays=lambda job: shared)  # noqa: ARG005
    assert before - ray.available_resources()["object_store_memory"] < 2 * shared[0].nbytes
    for job, outcome in outcomes.items():
        expected = {"sum": int(shared[0][job].astype(int).sum()), "y": job, "own": False}
        assert outcome.result == expected, "mapped from the object store, not copied"


@pytest.mark.extra
@pytest.mark.usefixtures("local")
def test_a_job_that_fits_on_no_node_gives_one_line(monkeypatch):
    monkeypatch.setattr(pool, "NODE_WAIT", 0.5)
    with pytest.raises(StageError, match="no node of Ray has the 1 cores and 1 GPUs that each job"):
        run_all([1], lambda job, log: {}, gpus=1.0)  # noqa: ARG005


@pytest.mark.extra
@pytest.mark.usefixtures("ray_turn")
def test_workers_that_do_not_start_are_reported_with_rays_reason(tmp_path, local_python):
    script = tmp_path / "broken python"
    script.write_text("#!/bin/sh\necho 'libexample.so: cannot open shared object file' >&2\nexit 1")
    script.chmod(0o755)
    done = local_python(
        "from types import SimpleNamespace\n"
        f"pool.sys = SimpleNamespace(executable={str(script)!r})\n"
        "pool.WORKER_START = 10.0\n",
        RAY_ADDRESS="",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: Ray started no worker in 10 s: libexample.so: cannot open shared object file"
    )


@pytest.mark.extra
@pytest.mark.usefixtures("ray_turn")
def test_a_node_that_stops_starting_workers_is_reported(tmp_path, local_python):
    script, broken = tmp_path / "python", tmp_path / "broken"
    script.write_text(
        f"#!/bin/sh\nif [ -e '{broken}' ]; then echo 'no space left' >&2; exit 1; fi\n"
        f"exec '{sys.executable}' \"$@\"\n"
    )
    script.chmod(0o755)
    done = local_python(
        "from pathlib import Path\nfrom types import SimpleNamespace\n"
        f"pool.sys = SimpleNamespace(executable={str(script)!r})\n"
        "pool.PROBE_EVERY = 10.0\n"
        f"def work(job, log):\n    Path({str(broken)!r}).touch()\n    return {{}}\n",
        "for progress in pool.run_jobs(range(20), work, lambda job: []):\n"
        "            if progress.stuck: return print(*progress.stuck)",
        RAY_ADDRESS="",
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ray starts no workers on node \w+: no space left\n$", done.stdout)


def test_an_address_without_a_cluster_gives_one_line(local_python):
    done = local_python("", RAY_ADDRESS="127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Ray at 127.0.0.1:9 does not answer")
    assert "Traceback" not in done.stderr


def test_without_ray_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(pool, "has_ray", lambda: False)
    message = r"Ray.*not installed.*studies/requirements\.txt"
    with pytest.raises(StageError, match=message), connected(store_bytes=0):
        pass


@pytest.fixture
def local_python(tmp_path):
    """Return a function that changes `pool`, connects and runs `body`, in another process."""

    def connect(
        changes: str, body: str = "pass", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        code = (
            "from studies.engine import pool\nfrom stages.common.cli import run\n"
            f"{changes}def main():\n    with pool.connected(0):\n        {body}\nrun(main)"
        )
        return subprocess.run(
            [sys.executable, "-c", code], cwd=pool.ROOT,
            env=os.environ | variables | {"HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    return connect
