"""What the pipeline adds to the training: seconds and memory of the stages around it.

    python -m benchmarks.pipeline

Each round is a fresh clone of the last commit, in which `dvc repro` runs everything with one epoch
a model, then again with nothing to do; what the pipeline adds does not depend on the number of
epochs. Prints the table and writes `benchmarks/pipeline.json`. Needs the raw data (`KERAS_HOME`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import measure
from stages.common.cli import run
from stages.common.files import read_json, write_json
from stages.common.params import PARAMS_FILE, model_names, read_yaml
from stages.training.session import processor
from tools.verify import changed, clone, reproduce

SETTINGS = ["epochs=1", "seed=1"]
# Loads what `evaluate` loads, then times its work alone.
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
FIGURES = {  # what each is, its unit, and the most that it should be
    "added_seconds": ("`dvc repro` from nothing, less the seconds of training", "s", 30),
    "nothing_to_do_seconds": ("`dvc repro` with nothing to do", "s", 2.5),
    "evaluate_seconds": ("`evaluate`: three models, 10,000 images, after its imports", "s", 3),
    "report_seconds": ("`report`, imports included", "s", 8),
    "peak_memory_bytes": ("largest resident set of a training stage", "GB", 1.3e9),
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
        said = ", ".join(f"{name} {shown(name, value)}" for name, value in rounds[-1].items())
        print(f"round {number + 1}/{arguments.rounds}: {said}", flush=True)
    result = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "dataset": arguments.dataset,
        "rounds": arguments.rounds,
        "figures": summary(rounds),
    }
    write_json(arguments.output, result)
    print(table(result))


def one_round(folder: Path, params: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a fresh clone in `folder`."""
    clone(folder, params)
    started = time.perf_counter()
    reproduce(folder)
    wall = time.perf_counter() - started
    timing = [read_json(folder / f"metrics/timing/{name}.json") for name in model_names()]
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
    """Run the stage `report` of a pipeline that ran; return how long that took."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stages.report"], cwd=folder, stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - started


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return each figure's median and range over the rounds, and each round's."""
    found = {}
    for name in FIGURES:
        values = [figures[name] for figures in rounds]
        found[name] = {
            "median": round(statistics.median(values), 2),
            "range": [round(min(values), 2), round(max(values), 2)],
            "rounds": [round(value, 2) for value in values],
        }
    return found


def shown(name: str, value: float) -> str:
    unit = FIGURES[name][1]
    return f"{value / 1e9:.2f} GB" if unit == "GB" else f"{value:.1f} {unit}"


def table(result: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["| what | median | least to greatest | target, at most |", "|---|--:|--:|--:|"]
    for name, (what, _, most) in FIGURES.items():
        median = result["figures"][name]["median"]
        ends = " to ".join(shown(name, value) for value in result["figures"][name]["range"])
        lines.append(f"| {what} | {shown(name, median)} | {ends} | {shown(name, most)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
