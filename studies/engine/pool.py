"""Running jobs with Ray, each in a process of its own: on this machine, or on a cluster.

With `RAY_ADDRESS` set the jobs go to that cluster. Without it Ray starts itself here: on all
cores, listening on the loopback address alone, without a dashboard or usage statistics.
Workers get the code and the arrays from Ray; they need no copy of the repository.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from stages.common.cli import StageError, one_line

ROOT = Path(__file__).parents[2]
CODE = ("stages", "studies/__init__.py", "studies/engine")  # what workers get
LOOPBACK = "127.0.0.1"
ATTEMPTS = 3  # of a job that fails, unless it fails twice in the same way
LOST_WORKERS = 3  # times that Ray starts a job again whose worker or node is gone
QUEUED = 8  # jobs handed to Ray beyond those that can run: a node that comes finds work
POLL = 1.0  # seconds between two looks at what has ended
PATIENCE = 5.0  # seconds without a node that has room for a job …
CLUSTER_PATIENCE = 600.0  # … and on a cluster, which may be about to grow
STORE_MARGIN = 96 * 2**20  # bytes of the object store beside the arrays
# Before Ray is imported. Without the first, Ray on Linux listens on the host's own address.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass
class Outcome:
    """How a job ended: with a `result`, or with an `error` of one line; `log` tells the story."""

    job: Any
    result: dict[str, Any] | None
    error: str
    log: str
    node: str
    attempts: int


@dataclass
class Progress:
    """How far the jobs are; `running` are those that have a processor."""

    waiting: int = 0
    running: int = 0
    slots: int = 0
    ended: list[Outcome] = field(default_factory=list)


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


@contextmanager
def connected(store_bytes: int) -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS`, or start Ray here; leave it in the end.

    Parameters
    ----------
    store_bytes
        Size of the arrays that travel, for which the object store of a Ray of our own has room.

    Raises
    ------
    StageError
        Ray is not installed, or does not start.
    """
    if not has_ray():
        raise StageError(
            "studies run on Ray, which is not installed: `make study STUDY=NAME` installs it, or "
            "pip install --require-hashes -r studies/requirements.txt"
        )
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address.startswith(LOOPBACK):
        os.environ |= ALONE
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    here: dict[str, Any] = {
        "address": "local",  # not one that runs here already, for another study
        "num_cpus": joblib.cpu_count(),  # heeds affinity and containers' limits
        "include_dashboard": False,
        "object_store_memory": store_bytes + STORE_MARGIN,
        "_node_ip_address": LOOPBACK,
    }
    with tempfile.TemporaryDirectory(prefix="study-code-") as code:
        # A copy: what is edited while a study runs does not reach its later trials.
        copy_code(Path(code))
        try:
            _knock(address)
            ray.init(
                **({} if address else here),
                runtime_env={"working_dir": code},
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"at {address} does not answer" if address else "does not start"
            raise StageError(f"Ray {where}: {_reason(error)}") from None
        try:
            yield
        finally:
            ray.shutdown()


def copy_code(folder: Path) -> None:
    """Copy the code that workers run to `folder`."""
    for name in CODE:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "templates")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself takes two minutes to say so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def run_jobs(
    jobs: Sequence[Any],
    work: Callable[..., dict[str, Any]],
    arrays: Callable[[Any], Sequence[Any]],
    *,
    cpus: int = 1,
    gpus: float = 0.0,
    on_change: Callable[[Progress], None],
) -> list[Outcome]:
    """Run `work(job, *arrays, log=…)` for each job, on as many processors as there are.

    Parameters
    ----------
    arrays
        Gives the arrays of a job. Equal sets (by identity) go into the object store once.
    on_change
        Is told the progress at each end of a job, and every second or so; the new outcomes are
        those at the end of `Progress.ended`.

    Returns
    -------
    list of Outcome
        One a job, in the order in which they ended.

    Raises
    ------
    StageError
        No node has what a job asks for, and none has come for a while.
    """
    import ray

    remote = ray.remote(max_calls=1, max_retries=LOST_WORKERS, num_cpus=cpus, num_gpus=gpus)(
        _attempt
    )
    stored: dict[tuple[int, ...], list[Any]] = {}
    kept: list[Any] = []  # so that no array's identity is given to another
    waiting = deque((job, 1, "", None) for job in jobs)
    running: dict[Any, tuple[Any, int, str]] = {}
    progress = Progress(waiting=len(waiting))
    patience = CLUSTER_PATIENCE if os.environ.get("RAY_ADDRESS") else PATIENCE
    fitted = time.monotonic()  # when a node last had room for a job
    while waiting or running:
        progress.slots = _slots(cpus, gpus)
        if progress.slots:
            fitted = time.monotonic()
        elif time.monotonic() - fitted >= patience:
            asked = f"{cpus} cores" + (f" and {gpus:g} GPUs" if gpus else "")
            raise StageError(f"no node of Ray has {asked}, which a job asks for")
        while waiting and len(running) < progress.slots + QUEUED:
            job, attempt, before, avoid = waiting.popleft()
            parts = arrays(job)
            key = tuple(id(part) for part in parts)
            if key not in stored:
                kept.append(parts)
                stored[key] = [ray.put(part) for part in parts]
            reference = remote.options(**_elsewhere(avoid)).remote(work, job, *stored[key])
            running[reference] = (job, attempt, before)
        progress.running = min(len(running), progress.slots)
        progress.waiting = len(waiting) + len(running) - progress.running
        on_change(progress)
        done, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
        for reference in done:
            job, attempt, before = running.pop(reference)
            outcome = _outcome(reference, job, attempt)
            if outcome.error and attempt < ATTEMPTS and outcome.error != before:
                waiting.appendleft((job, attempt + 1, outcome.error, outcome.node))
            else:
                progress.ended.append(outcome)
    progress.running = progress.waiting = 0
    on_change(progress)
    return progress.ended


def _attempt(work: Callable[..., dict[str, Any]], job: Any, *arrays: Any) -> dict[str, Any]:
    """Do the work in a worker, keeping its log; whatever it raises becomes data."""
    import ray

    lines: list[str] = []
    node = ray.get_runtime_context().get_node_id()
    try:
        result = work(job, *arrays, log=lines.append)
    except Exception as error:  # one trial's failure must not end the study
        lines.append(traceback.format_exc())
        return {"error": _reason(error), "log": lines, "node": node}
    return {"result": result, "log": lines, "node": node}


def _outcome(reference: Any, job: Any, attempt: int) -> Outcome:
    import ray

    try:
        answer = ray.get(reference)
    except ray.exceptions.RayError as error:  # the worker is gone, with its node or without
        answer = {"error": _reason(error), "log": [str(error)], "node": ""}
    return Outcome(
        job=job,
        result=answer.get("result"),
        error=answer.get("error", ""),
        log="\n".join(answer["log"]) + "\n",
        node=answer["node"],
        attempts=attempt,
    )


def _slots(cpus: int, gpus: float) -> int:
    """Return how many jobs the nodes can run at once."""
    import ray

    slots = 0
    for node in ray.nodes():
        if node["Alive"]:
            has: Mapping[str, float] = node["Resources"]
            fits = int(has.get("CPU", 0) // cpus)
            slots += min(fits, int(has.get("GPU", 0) // gpus)) if gpus else fits
    return slots


def _elsewhere(avoid: str | None) -> dict[str, Any]:
    """Return the options that send a job to another node than `avoid`, where there is one."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != avoid]
    if not avoid or not others:
        return {}
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(others[0], soft=True)}


def _reason(error: Exception) -> str:
    """Return an error as one line, with its type unless it is our own."""
    text = one_line(error)
    return text if isinstance(error, StageError) else f"{type(error).__name__}: {text}"[:500]
