"""Measure what the pipeline adds to the training: time and memory of the stages around it.

    python -m benchmarks.pipeline

Each round is a fresh clone of the last commit. There `dvc repro` runs everything with one epoch per
model, and then again with nothing to do; the number of epochs does not matter for what is measured.
Prints the measurements and writes `benchmarks/pipeline.json`. Needs the raw data (`KERAS_HOME`).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import machine, measure
from stages.common.cli import run
from stages.common.files import read_json, write_json
from stages.common.params import PARAMS_FILE, model_names, read_yaml
from tools.verify import changed, clone, reproduce

SETTINGS = ["epochs=1", "seed=1", "evaluate.corruptions=false"]
# Loads what `evaluate` loads, then times its work only.
EVALUATE = """
import json, time
from stages import evaluate
from stages.training.runtime import choose_threads, configure
configure(choose_threads(0, batch_size=1, batch_norm=False), seed=1)
import stages.models.shared.archive, stages.models.shared.inference
started = time.perf_counter()
evaluate.main()
print(json.dumps({"seconds": time.perf_counter() - started}))
"""
FIGURES = {  # the largest allowed median, in seconds or bytes as the name says
    "added_seconds": 18,  # `dvc repro` from nothing, without the seconds of training
    "nothing_to_do_seconds": 1.5,
    "evaluate_seconds": 2.5,  # three models and 10,000 images, without imports
    "report_seconds": 5,  # with imports
    "peak_memory_bytes": 1.3e9,  # of a training stage
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the pipeline adds to the training.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/pipeline.json"))
    arguments = parser.parse_args()
    params = changed(read_yaml(PARAMS_FILE), [*SETTINGS, f"dataset={arguments.dataset}"])
    rounds = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            rounds.append(one_round(Path(temporary) / "clone", params))
        shown = ", ".join(f"{name} {value:.4g}" for name, value in rounds[-1].items())
        print(f"round {number + 1}/{arguments.rounds}: {shown}", flush=True)
    figures = summary(rounds)
    result = {"machine": machine(), "dataset": arguments.dataset, "rounds": arguments.rounds}
    write_json(arguments.output, result | {"figures": figures})
    for name, most in FIGURES.items():
        median = figures[name]["median"]
        print(f"{name}: median {median:.4g}, {'above' if median > most else 'within'} {most:g}")


def one_round(folder: Path, params: dict[str, Any]) -> dict[str, float]:
    """Clone into `folder`, run the pipeline there, and return `FIGURES` (seconds and bytes)."""
    clone(folder, params)
    started = time.perf_counter()
    reproduce(folder)
    wall = time.perf_counter() - started
    timing = [read_json(folder / f"data/timing/{name}.json") for name in model_names()]
    started = time.perf_counter()
    reproduce(folder)
    return {
        "added_seconds": wall - sum(stage["train_seconds"] for stage in timing),
        "nothing_to_do_seconds": time.perf_counter() - started,
        "evaluate_seconds": measure([sys.executable, "-c", EVALUATE], folder)["seconds"],
        "report_seconds": report_seconds(folder),
        "peak_memory_bytes": max(stage["peak_memory_bytes"] for stage in timing),
    }


def report_seconds(folder: Path) -> float:
    """Return how long the stage `report` takes in a pipeline that has run."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stages.report"], cwd=folder, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - started


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return each measurement's median and range, and its value per round, in its own unit."""
    found = {}
    for name in FIGURES:
        values = [round(figures[name], 2) for figures in rounds]
        found[name] = {
            "median": round(statistics.median(values), 2),
            "range": [min(values), max(values)],
            "rounds": values,
        }
    return found


if __name__ == "__main__":
    run(main)
