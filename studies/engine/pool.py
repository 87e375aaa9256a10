"""Run jobs with Ray, each in its own process, on this machine or on a cluster.

With `RAY_ADDRESS` set, the jobs run on that cluster. Otherwise Ray starts here: on all cores,
listening on the loopback address only, without a dashboard or usage statistics. Workers get the
code and the arrays from Ray, so they need no copy of the repository.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from stages.common.cli import StageError, one_line
from stages.common.files import temporary_folder

ROOT = Path(__file__).parents[2]
CODE = ("stages", "studies/engine")  # what workers get
LOOPBACK = "127.0.0.1"
ATTEMPTS = 3  # per job; two failures in a row with the same error also end it
LOST_WORKERS = 3  # times that Ray itself restarts a job whose worker or node died
QUEUED = 8  # jobs submitted beyond those that can run, so that a new node finds work at once
POLL = 1.0  # seconds between two checks for finished jobs
WORKER_START = 50.0  # seconds until the first worker must have started
PROBE_EVERY = 120.0  # seconds between two checks that nodes still start workers
NODE_WAIT, CLUSTER_WAIT = 5.0, 600.0  # seconds to wait for a node with room; clusters may grow
STORE_MARGIN = 96 * 2**20  # bytes of the object store beyond the arrays
# Set before Ray is imported. Without the first, Ray on Linux listens on the host's own address.
LOCAL_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass
class Outcome:
    """How a job ended: with a `result`, or with a one-line `error`. `log` has the details."""

    job: Any
    result: dict[str, Any] | None
    error: str
    log: str
    node: str
    attempts: int


@dataclass
class Progress:
    """How far the jobs of `run_jobs` are, at one moment."""

    waiting: int  # jobs without cores so far
    running: int  # jobs with cores
    ended: list[Outcome]  # of the jobs that ended since the previous `Progress`
    stuck: list[str]  # for each node found to start no workers since then, a line that says why


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


@contextmanager
def connected(store_bytes: int) -> Iterator[None]:
    """Connect to the cluster at `RAY_ADDRESS`, or start Ray here; disconnect at the end.

    A local Ray gets an object store with room for arrays of `store_bytes`. If Ray is not installed,
    does not start, or starts no workers, this raises StageError.
    """
    if not has_ray():
        raise StageError(
            "studies run on Ray, which is not installed: `make study STUDY=NAME` installs it, or "
            "pip install --require-hashes -r studies/requirements.txt"
        )
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address.startswith(LOOPBACK):
        os.environ |= LOCAL_ONLY
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    # Workers run a copy of the code, so that edits during a study do not reach later trials.
    with temporary_folder(Path(tempfile.gettempdir()), "study-code-") as code:
        for package in CODE:
            ignored = shutil.ignore_patterns("__pycache__", "templates")
            shutil.copytree(ROOT / package, code / package, ignore=ignored)
        try:
            start_ray(address, str(code), store_bytes)
            yield
        except ray.exceptions.RayError as error:
            raise StageError(f"Ray stopped working: {error_text(error)}") from None
        finally:
            ray.shutdown()


def start_ray(address: str, code: str, store_bytes: int) -> None:
    """Connect to the cluster at `address`, or start Ray here, and wait for the first worker."""
    import ray

    environment, settings = {"working_dir": code}, {}
    if not address or address.startswith(LOOPBACK):  # the nodes have this machine's Python
        # Ray starts workers through a shell, which would split a path at its spaces.
        environment["py_executable"] = shlex.quote(sys.executable)
    if not address:
        settings = {
            "address": "local",  # a new Ray, even if another study runs one here
            "num_cpus": joblib.cpu_count(),  # respects affinity and container limits
            "include_dashboard": False,
            "object_store_memory": store_bytes + STORE_MARGIN,
            "_node_ip_address": LOOPBACK,
        }
    try:
        check_reachable(address)
        context = ray.init(
            **settings, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False
        )
    except Exception as error:  # Ray raises many types, also plain Exception
        failed = f"at {address} does not answer" if address else "does not start"
        raise StageError(f"Ray {failed}: {error_text(error)}") from None
    print(f"waiting for Ray's first worker, at most {WORKER_START:.0f} s", flush=True)
    try:
        ray.get(ray.remote(num_cpus=0)(lambda: None).remote(), timeout=WORKER_START)
    except ray.exceptions.GetTimeoutError:
        folder = getattr(context, "address_info", {}).get("session_dir", "")
        reason = ray_reason(Path(folder, "logs"))
        raise StageError(f"Ray started no worker in {WORKER_START:.0f} s: {reason}") from None
    except ray.exceptions.RayError as error:
        raise StageError(
            f"Ray runs, but its workers do not start ({error_text(error)}); "
            "see the logs of its nodes"
        ) from None


def check_reachable(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself takes two minutes to say so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def ray_reason(logs: Path) -> str:
    """Return the last line of Ray's error logs, or where to look for one."""
    workers = sorted(logs.glob("worker-*.err"), key=lambda path: path.stat().st_mtime)
    for path in [*logs.glob("raylet.err"), *reversed(workers)]:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if lines := [line for line in lines if line.strip() and not line.startswith(":")]:
            return lines[-1]
    return f"its error logs are empty; see {logs}" if logs.is_dir() else "see the logs of its nodes"


def run_jobs(
    jobs: Sequence[Any],
    work: Callable[..., dict[str, Any]],
    arrays: Callable[[Any], Sequence[Any]],
    *,
    cpus: int = 1,
    gpus: float = 0.0,
) -> Iterator[Progress]:
    """Run `work(job, *arrays, log=…)` for each job, as many at once as fit on the nodes.

    `arrays` returns the arrays of a job; a sequence that several jobs share is stored once. Yields
    whenever a job ends, and at least every `POLL` seconds; each job ends once. If no node has what
    a job needs, and none joins for a while, this raises StageError.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(max_calls=1, max_retries=LOST_WORKERS, num_cpus=cpus, num_gpus=gpus)(
        _attempt
    )
    stored: dict[int, tuple[Sequence[Any], list[Any]]] = {}  # by identity; keeps the arrays alive
    waiting: deque[tuple[Any, list[Outcome]]] = deque((job, []) for job in jobs)
    running: dict[Any, tuple[Any, list[Outcome]]] = {}  # with the failed attempts so far
    retries: Counter[str] = Counter()  # by node
    wait = CLUSTER_WAIT if os.environ.get("RAY_ADDRESS") else NODE_WAIT
    had_room = time.monotonic()
    probes = Probes()
    ended: list[Outcome] = []
    while waiting or running:
        slots = job_slots(cpus, gpus)
        total = sum(slots.values())
        if total:
            had_room = time.monotonic()
        elif time.monotonic() - had_room >= wait:
            needed = f"{cpus} cores" + (f" and {gpus:g} GPUs" if gpus else "")
            raise StageError(f"no node of Ray has the {needed} that each job needs")
        while waiting and len(running) < total + QUEUED:
            job, failed = waiting.popleft()
            parts = arrays(job)
            if id(parts) not in stored:
                stored[id(parts)] = parts, [ray.put(part) for part in parts]
            options = {}
            if failed and (node := retry_node([each.node for each in failed], slots, retries)):
                retries[node] += 1
                options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
            reference = remote.options(**options).remote(work, job, *stored[id(parts)][1])
            running[reference] = job, failed
        active = min(len(running), total)
        yield Progress(len(waiting) + len(running) - active, active, ended, probes.stuck(slots))
        done, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
        ended = []
        for reference in done:
            job, failed = running.pop(reference)
            outcome = _outcome(reference, job, len(failed) + 1)
            same = bool(failed) and failed[-1].error == outcome.error
            if outcome.error and outcome.attempts < ATTEMPTS and not same:
                waiting.appendleft((job, [*failed, outcome]))
            else:
                ended.append(outcome)
    yield Progress(0, 0, ended, [])


class Probes:
    """Empty tasks, one per node at a time. A node where one does not run starts no workers.

    Ray itself does not say so: it tries again for ever, and the jobs look as if they ran.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.pending: dict[str, Any] = {}  # reference by node
        self.reported: set[str] = set()

    def stuck(self, nodes: Collection[str]) -> list[str]:
        """Check the probes if `PROBE_EVERY` seconds have passed, and send new ones to `nodes`.

        Returns a line for each node that had no worker for its probe. A node is reported again only
        after it has started a worker.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if time.monotonic() - self.started < PROBE_EVERY:
            return []
        self.started = time.monotonic()
        _, late = ray.wait(list(self.pending.values()), num_returns=len(self.pending), timeout=0)
        self.pending = {n: ref for n, ref in self.pending.items() if ref in late and n in nodes}
        new = self.pending.keys() - self.reported
        self.reported = set(self.pending)
        probe = ray.remote(num_cpus=0, max_calls=1)(lambda: None)
        for node in set(nodes) - self.pending.keys():
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            self.pending[node] = probe.options(scheduling_strategy=strategy).remote()
        return [
            f"Ray starts no workers on node {node['NodeID']}: "
            f"{ray_reason(Path(node['RayletSocketName']).parents[1] / 'logs')}"
            for node in ray.nodes()
            if node["NodeID"] in new
        ]


def _attempt(work: Callable[..., dict[str, Any]], job: Any, *arrays: Any) -> dict[str, Any]:
    """Do the work in a worker and keep its log. Exceptions become data."""
    import ray

    lines: list[str] = []
    answer: dict[str, Any] = {"log": lines, "node": ray.get_runtime_context().get_node_id()}
    try:
        return answer | {"result": work(job, *arrays, log=lines.append)}
    except Exception as error:  # one trial's failure must not end the study
        lines.append(traceback.format_exc())
        return answer | {"error": error_text(error)}


def _outcome(reference: Any, job: Any, attempts: int) -> Outcome:
    """Return how an attempt ended."""
    import ray

    try:
        answer = ray.get(reference)
    except ray.exceptions.RayError as error:  # the worker died, alone or with its node
        answer = {"error": error_text(error), "log": [str(error)], "node": ""}
    return Outcome(
        job=job,
        result=answer.get("result"),
        error=answer.get("error", ""),
        log="\n".join(answer["log"]) + "\n",
        node=answer["node"],
        attempts=attempts,
    )


def job_slots(cpus: int, gpus: float) -> dict[str, int]:
    """Return how many jobs with these needs fit on each node, by ID, without nodes for none."""
    import ray

    slots = {}
    for node in ray.nodes():
        has: Mapping[str, float] = node["Resources"] if node["Alive"] else {}
        fits = [has.get("CPU", 0) // cpus, *([has.get("GPU", 0) // gpus] if gpus else [])]
        slots[node["NodeID"]] = int(min(fits))
    return {node: number for node, number in slots.items() if number}


def retry_node(
    failed_on: Collection[str], slots: Mapping[str, int], retries: Mapping[str, int]
) -> str | None:
    """Return the node with the fewest retries per slot where the job has not failed, or None."""
    others = [node for node in slots if node not in failed_on]
    return min(others, key=lambda node: retries.get(node, 0) / slots[node], default=None)


def error_text(error: Exception) -> str:
    """Return an error as one line, with its type unless it is a StageError."""
    text = one_line(error)
    return text if isinstance(error, StageError) else f"{type(error).__name__}: {text}"[:500]
