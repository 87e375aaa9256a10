"""Speed and memory with the training set as it is and ten times as large, made by repetition.

    python -m benchmarks.growth

The sides alternate. Prints, and writes to `benchmarks/growth.json`, the images per second and the
peak memory of both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import checked_data, measure
from stages.files import run, write_json
from stages.params import MODELS
from stages.prepared import PREPARED, read_split
from stages.train import processor

TIMES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a larger training set costs.")
    parser.add_argument("--model", choices=MODELS, default="cnn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/growth.json"))
    arguments = parser.parse_args()
    checked_data(arguments.data)
    found: dict[int, list[dict[str, Any]]] = {1: [], TIMES: []}
    with tempfile.TemporaryDirectory() as temporary:
        large = Path(temporary)
        added = repeat(arguments.data, large)
        for number in range(arguments.rounds):
            order = (1, TIMES) if number % 2 == 0 else (TIMES, 1)
            for times in order:
                folder = arguments.data if times == 1 else large
                words = ["-m", "benchmarks.ours", arguments.model, str(folder)]
                found[times].append(measure([sys.executable, *words]))
                print(f"round {number + 1}/{arguments.rounds}, {times} times: {said(found[times])}")
    ratios = [speed(b) / speed(a) for a, b in zip(found[1], found[TIMES], strict=True)]
    result = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "model": arguments.model,
        "rounds": arguments.rounds,
        "images_per_second": {str(t): round(middle(runs, speed)) for t, runs in found.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "peak_memory_bytes": {str(t): round(middle(runs, memory)) for t, runs in found.items()},
        "added_bytes": added,
    }
    write_json(arguments.output, result)
    grown = result["peak_memory_bytes"][str(TIMES)] - result["peak_memory_bytes"]["1"]
    print(
        f"{TIMES} times the images: {result['ratio']:.2f} of the images per second "
        f"({min(ratios):.2f} to {max(ratios):.2f}); memory grew by {grown / 1e6:.0f} MB, "
        f"the images by {added / 1e6:.0f} MB"
    )


def repeat(source: Path, target: Path) -> int:
    """Write the arrays of `source` to `target`, training ones repeated; return the added bytes."""
    x, y = read_split("train", source)
    larger = np.lib.format.open_memmap(
        target / "x_train.npy", mode="w+", dtype=x.dtype, shape=(TIMES * len(x), *x.shape[1:])
    )
    for part in range(TIMES):
        larger[part * len(x) : (part + 1) * len(x)] = x
    larger.flush()
    np.save(target / "y_train.npy", np.tile(y, TIMES))
    for name in ("x_val.npy", "y_val.npy"):
        shutil.copy(source / name, target / name)
    return larger.nbytes - x.nbytes


def speed(answer: dict[str, Any]) -> float:
    return answer["examples"] / answer["epochs"][-1]["seconds"]


def memory(answer: dict[str, Any]) -> float:
    return answer["peak_memory_bytes"]


def middle(answers: Sequence[dict[str, Any]], figure) -> float:
    return statistics.median(figure(answer) for answer in answers)


def said(answers: Sequence[dict[str, Any]]) -> str:
    return f"{speed(answers[-1]):.0f} images/s, {memory(answers[-1]) / 1e6:.0f} MB"


if __name__ == "__main__":
    run(main)
