"""Seconds of training until we validate as well as the published recipe does after 10 epochs.

    python -m benchmarks.time_to_accuracy

The published recipe is run as a plain Keras script: Adam at a constant rate, batches of 128, no
normalization, no augmentation. Ours is that of params.yaml with fewer epochs, over which its
learning-rate schedule runs; its seconds include building the graph, the script's do not. Prints,
and writes to `benchmarks/time_to_accuracy.json`, the seconds and their ratio.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench import PEERS, measure
from stages.files import StageError, run, write_json
from stages.prepared import PREPARED
from stages.train import processor

PUBLISHED_EPOCHS = 10
OUR_EPOCHS = {"cnn": 5, "lstm": 4}  # of our schedule: more take longer, too few do not get there


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the time to the published accuracy.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/time_to_accuracy.json"))
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "rounds": arguments.rounds,
        "rows": [],
    }
    for model, epochs in OUR_EPOCHS.items():
        rounds = [compare(model, epochs, arguments.data) for _ in range(arguments.rounds)]
        shares = [r["ours"] / r["plain"] for r in rounds]
        result["rows"].append(
            {
                "model": model,
                "our_epochs": epochs,
                "val_accuracy": [r["val_accuracy"] for r in rounds],
                "plain_seconds": [round(r["plain"], 1) for r in rounds],
                "our_seconds": [round(r["ours"], 1) for r in rounds],
                "share": round(statistics.median(shares), 3),
                "share_range": [round(min(shares), 3), round(max(shares), 3)],
            }
        )
        print(f"{model}: {statistics.median(shares):.2f} of the plain recipe's seconds")
    write_json(arguments.output, result)


def compare(model: str, epochs: int, data: Path) -> dict[str, float]:
    """Run both sides once."""
    script = [str(PEERS / "keras_script.py"), "--batch", "128", "--no-batch-norm"]
    plain = measure([sys.executable, *script, "--epochs", str(PUBLISHED_EPOCHS), model, str(data)])[
        "epochs"
    ]
    target = plain[-1]["val_accuracy"]
    ours = measure(
        [sys.executable, "-m", "benchmarks.ours", "--epochs", str(epochs), model, str(data)]
    )["epochs"]
    found = {
        "val_accuracy": target,
        "plain": sum(epoch["seconds"] for epoch in plain),
        "ours": seconds_until(ours, target),
    }
    print(
        f"{model}: {found}, ours {[round(epoch['val_accuracy'], 4) for epoch in ours]}", flush=True
    )
    return found


def seconds_until(epochs: list[Mapping[str, float]], target: float) -> float:
    """Return the seconds up to the end of the first epoch that validates at `target` or better.

    Raises
    ------
    StageError
        None does.
    """
    spent = itertools.accumulate(epoch["seconds"] for epoch in epochs)
    for seconds, epoch in zip(spent, epochs, strict=True):
        if epoch["val_accuracy"] >= target:
            return seconds
    raise StageError(f"no epoch of ours validates at {target:.4f}; OUR_EPOCHS is too small")


if __name__ == "__main__":
    run(main)
