"""Measure what studies cost and gain on this machine.

    python -m studies.measure throughput     trials an hour: one after another, and packed
    python -m studies.measure overhead       what a trial costs beside its training

Writes `studies/measured/NAME.json`, which studies/README.md quotes. Run it from the repository's
root on an otherwise idle machine; `throughput` takes about twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import yaml

from stages.digests import STAGES
from stages.files import StageError, run, write_json
from stages.params import MODELS
from stages.study.cluster import connected, run_jobs
from stages.study.file import Study, trials
from stages.study.trial import make_job
from stages.train import processor

MEASURED = Path("studies/measured")
NEEDED = ("params.yaml", "stages", "studies/floors.yaml", "studies/published.yaml")  # by a study
GRIDS = {  # of `throughput`: long trials are all training, short ones start, import and trace
    "mnist": {"dataset": ["mnist"], "epochs": [2]},
    "digits": {"dataset": ["digits"], "epochs": [20], "train.batch_size": [32]},
}
WAYS = {"one after another, all threads": 0, "packed, one core each": 1}  # cpus of a trial
ARRAYS = {"x_train": (54_000, 28, 28, 1), "y_train": (54_000, 4), "x_test": (10_000, 28, 28, 1)}
HISTORY = 30  # rows, as a trial of 30 epochs sends back


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what studies cost and gain here.")
    parser.add_argument("what", choices=("throughput", "overhead"))
    parser.add_argument("--rounds", type=int, default=3, help="of throughput, alternating")
    parser.add_argument("--seeds", type=int, default=2, help="trials a model in a round")
    parser.add_argument("--jobs", type=int, default=500, help="of overhead")
    arguments = parser.parse_args()
    if arguments.what == "throughput":
        found = {
            name: throughput(name, grid, arguments.rounds, arguments.seeds)
            for name, grid in GRIDS.items()
        }
    else:
        found = overhead(arguments.jobs)
    machine = {"processor": processor(), "cores": joblib.cpu_count()}
    write_json(MEASURED / f"{arguments.what}.json", {"machine": machine, **found})
    print(yaml.safe_dump(found, sort_keys=False))


# --- throughput ---------------------------------------------------------------------------


def throughput(name: str, grid: dict[str, list], rounds: int, seeds: int) -> dict[str, Any]:
    """Run the same trials in both ways, in turn; the wall time holds the start of Ray as well."""
    grid = grid | {"model": list(MODELS), "seed": list(range(1, seeds + 1))}
    study = {"description": "throughput", "evaluate": "test", "grid": grid}
    trials = len(MODELS) * seeds
    hourly: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, cpus in WAYS.items():
            seconds = timed_study(study, cpus)
            hourly[way].append(trials * 3600 / seconds)
            print(f"{name}, {way}: {trials} trials in {seconds:.0f} s", flush=True)
    one, packed = hourly.values()
    ratios = [b / a for a, b in zip(one, packed, strict=True)]
    return {
        "epochs": grid["epochs"][0],
        "trials_a_round": trials,
        "trials_per_hour": {way: [round(n, 1) for n in each] for way, each in hourly.items()},
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "each": [round(ratio, 3) for ratio in ratios],
        },
    }


def timed_study(study: dict[str, Any], cpus: int) -> float:
    """Run a study in a folder of its own, where no trial is kept, and return its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NEEDED:
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(name, target)
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(study), encoding="utf-8")
        command = [sys.executable, "-m", "stages.study", "study.yaml", "--cpus", str(cpus)]
        started = time.perf_counter()
        done = subprocess.run(  # noqa: S603 -- our own
            command, cwd=folder, check=False, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StageError(f"the study failed: {last.removeprefix('error: ')}")
    return seconds


# --- overhead -----------------------------------------------------------------------------


def nothing(job: int, *arrays: np.ndarray, log: Any) -> dict[str, Any]:
    """Do what a trial does beside training: be started, map the arrays, send a result back."""
    row = {"epoch": 1, "accuracy": 0.5, "val_accuracy": 0.5, "loss": 1 / 3, "val_loss": 1 / 3,
           "learning_rate": 1e-3, "seconds": 1.0}  # fmt: skip
    for _ in range(HISTORY):
        log(f"job {job}: a line of progress, about as long as those of a training are, 1.0 s left")
    return {"history": [row] * HISTORY, "bytes": sum(int(array.nbytes) for array in arrays)}


def overhead(jobs: int) -> dict[str, Any]:
    """Run trials that train nothing; the driver's share is what bounds a large cluster."""
    arrays = [np.zeros(shape, np.uint8) for shape in ARRAYS.values()]
    size = sum(array.nbytes for array in arrays)
    with connected(size):
        import ray

        total = ray.cluster_resources()["object_store_memory"]
        memory = [resident()]
        used: list[float] = []

        def look(progress: Any) -> None:
            if len(progress.ended) in (jobs // 2, jobs):
                memory.append(resident())
                used.append(total - ray.available_resources().get("object_store_memory", total))

        started, cpu = time.perf_counter(), time.process_time()
        ended = run_jobs(range(jobs), nothing, lambda job: arrays, on_change=look)  # noqa: ARG005
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert all(outcome.result["bytes"] == size for outcome in ended)
    slots = joblib.cpu_count()
    lines: list[str] = []
    result = nothing(0, *arrays, log=lines.append)
    return {
        "jobs": jobs,
        "plan_cpu_seconds_a_trial": round(planning(jobs), 5),
        "code_bytes": sum(path.stat().st_size for path in STAGES.rglob("*.py")),
        "result_bytes": len(pickle.dumps((result, lines))),
        "seconds_a_trial_and_core": round(seconds * slots / jobs, 3),
        "driver_cpu_seconds_a_trial": round(cpu / jobs, 5),
        "array_bytes": size,
        "object_store_bytes_used": max(used, default=0.0),
        "driver_resident_bytes": {"start": memory[0], "half": memory[1], "end": memory[-1]},
        "driver_bytes_a_trial": round((memory[-1] - memory[1]) / (jobs - jobs // 2)),
    }


def planning(jobs: int) -> float:
    """Return the processor's seconds a trial before the first begins: parameters and key."""
    document = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    grid = {"model": ["cnn"], "seed": list(range(jobs))}
    study = Study(description="", evaluate="val", grid=[grid])
    data = {
        "image_shape": [28, 28, 1],
        "class_names": list("0123456789"),
        "splits": {part: {"x_sha256": "0" * 64, "y_sha256": "0" * 64} for part in ("train", "val")},
    }
    make_job(document, "cnn", study.evaluate, data)  # reads the code, once for all
    started = time.process_time()
    for trial in trials(study, document, cpus=1):
        make_job(trial.params.model_dump(), trial.model, study.evaluate, data)
    return (time.process_time() - started) / jobs


def resident() -> int:
    """Return the resident set of this process, bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    run(main)
