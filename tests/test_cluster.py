"""Running jobs with Ray: retries, isolation from later edits, and what listens where."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stages.files import StageError
from stages.study import cluster
from stages.study.cluster import ATTEMPTS, connected, run_jobs

# Not imported here: what `connected` sets must be there before.
if not cluster.has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)

TCP_LISTEN = "0A"  # of /proc/net/tcp; see proc(5)


@pytest.fixture(scope="module")
def local():
    """A Ray of our own, as a study starts it; yields what listened before."""
    before = listening()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with connected(store_bytes=2**20):
            from ray import cloudpickle

            cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield before


def listening() -> set[str]:
    """Return the local addresses, in the kernel's spelling, on which this machine listens."""
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{table}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        found |= {line.split()[1] for line in lines if line.split()[3] == TCP_LISTEN}
    return found


def is_loopback(address: str) -> bool:
    """Whether an address of /proc/net/tcp or tcp6 (words of host byte order) is this machine's."""
    words = address.split(":")[0]
    packed = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
    if len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff":
        packed = packed[12:]
    text = socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
    return text == "::1" or text.startswith("127.")


def run_all(jobs, work, arrays=lambda job: [], **options):  # noqa: ARG005
    """Run jobs and return their outcomes by job."""
    told = []
    ended = run_jobs(
        jobs, work, arrays, on_change=lambda p: told.append((p.running, len(p.ended))), **options
    )
    assert told[-1] == (0, len(jobs))
    assert len(ended) == len(jobs)
    return {outcome.job: outcome for outcome in ended}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")
def test_nothing_listens_beyond_loopback(local):
    def work(job, log):
        log(f"job {job}")
        return {"addresses": sorted(listening())}

    from_worker = set(run_all([1], work)[1].result["addresses"])
    ours = (listening() | from_worker) - local
    assert len(ours) >= 3, "Ray listens somewhere"
    assert [address for address in ours if not is_loopback(address)] == []


@pytest.mark.usefixtures("local")
def test_every_job_has_a_process_of_its_own_and_its_log():
    def work(job, log):
        log(f"job {job}")
        return {"process": os.getpid()}

    outcomes = run_all(range(6), work)
    assert len({outcome.result["process"] for outcome in outcomes.values()}) == 6
    assert {job: outcome.log for job, outcome in outcomes.items()} == {
        job: f"job {job}\n" for job in range(6)
    }


@pytest.mark.usefixtures("local")
def test_a_job_that_fails_is_tried_again_in_another_process(tmp_path):
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


@pytest.mark.usefixtures("local")
def test_arrays_travel_once_and_arrive_as_they_were():
    import numpy as np

    shared = [np.arange(100_000, dtype=np.uint8).reshape(10, 100, 100), np.arange(10)]

    def work(job, x, y, log):
        log(f"{x.dtype} {x.shape}")
        return {"sum": int(x[job].astype(int).sum()), "y": int(y[job]), "ours": x.flags.owndata}

    import ray

    before = ray.available_resources()["object_store_memory"]
    outcomes = run_all(range(4), work, arrays=lambda job: shared)  # noqa: ARG005
    assert before - ray.available_resources()["object_store_memory"] < 2 * shared[0].nbytes
    for job, outcome in outcomes.items():
        assert outcome.result["sum"] == int(shared[0][job].astype(int).sum())
        assert outcome.result["y"] == job
        assert not outcome.result["ours"], "mapped from the object store, not copied"


@pytest.mark.usefixtures("local")
def test_workers_run_the_code_as_it_was_when_the_study_started():
    def work(job, log):
        import stages.study.trial

        log(f"job {job}")
        return {"file": stages.study.trial.__file__}

    file = Path(run_all([0], work)[0].result["file"])
    assert file.name == "trial.py"
    assert not file.is_relative_to(cluster.STAGES)


@pytest.mark.usefixtures("local")
def test_a_job_that_fits_on_no_node_is_said(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with pytest.raises(StageError, match="no node of Ray has 1 cores and 1 GPUs, which a job asks"):
        run_all([1], lambda job, log: {}, gpus=1.0)  # noqa: ARG005


def test_without_ray_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(cluster, "has_ray", lambda: False)
    said = r"Ray.*not installed.*studies/requirements\.txt"
    with pytest.raises(StageError, match=said), connected(store_bytes=0):
        pass


def test_an_address_where_no_cluster_is_ends_in_one_line(tmp_path):
    code = (
        "from stages.study.cluster import connected\nfrom stages.files import run\n"
        "def main():\n    with connected(0): pass\nrun(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RAY_ADDRESS": "127.0.0.1:9", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Ray at 127.0.0.1:9 does not answer")
    assert "Traceback" not in done.stderr
