"""Measure the seconds until our training is as accurate as a reported recipe after 10 epochs.

    python -m benchmarks.time_to_accuracy

The reported recipe runs as a plain Keras script in float32: Adam with a constant rate, batches of
128, no normalization, no augmentation. Ours is that of `settings.yaml` with fewer epochs, which its
learning-rate schedule spans; the CNN has a recipe that was searched for two epochs on the same
validation images. Our seconds include building the graph, the script's do not.
Accuracy is validation accuracy. Writes `benchmarks/time_to_accuracy.json`: the seconds and their
ratio, null if ours did not get there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import PEERS, checked_data, has_bfloat16, machine, measure
from stages.common.arrays import PREPARED
from stages.common.cli import run
from stages.common.files import write_json

REPORTED_EPOCHS = 10
REPORTED_DROPOUT = {"cnn": 0.5, "lstm": 0.2}
OURS = {  # precision and epochs; fewer epochs do not reach the accuracy, more take longer
    "cnn": [("float32", 2), ("bfloat16", 2)],
    "lstm": [("float32", 4)],
}
CHANGED = {  # in settings.yaml; the search is in git history: studies/searches/cnn_2_epochs.yaml
    "cnn": {
        "train.batch_size": 128, "cnn.learning_rate": 0.006, "cnn.dropout": 0.0, "cnn.shift": 1,
    },
    "lstm": {},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the time to a reported accuracy.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/time_to_accuracy.json"))
    arguments = parser.parse_args()
    checked_data(arguments.data)
    rows = [row for model in OURS for row in compare(model, arguments.rounds, arguments.data)]
    for row in rows:
        share = "not reached" if row["share"] is None else f"{row['share']:.2f}"
        print(f"{row['model']} {row['precision']}: {share} of the reported recipe's seconds")
    write_json(arguments.output, {"machine": machine(), "rounds": arguments.rounds, "rows": rows})


def compare(model: str, rounds: int, data: Path) -> list[dict[str, Any]]:
    """Run the plain script and each of our settings in turn. Return one row per setting."""
    rows = [
        {"model": model, "precision": precision, "our_epochs": epochs, "target": [],
         "plain_seconds": [], "our_seconds": []}
        for precision, epochs in OURS[model]
        if precision == "float32" or has_bfloat16()
    ]  # fmt: skip
    for number in range(rounds):
        plain = plain_epochs(model, data)
        target = plain[-1]["val_accuracy"]
        for row in rows:
            ours = our_epochs(model, row["precision"], row["our_epochs"], data)
            row["target"].append(target)
            row["plain_seconds"].append(round(sum(epoch["seconds"] for epoch in plain), 1))
            row["our_seconds"].append(seconds_until(ours, target))
            print(
                f"round {number + 1}/{rounds} {model} {row['precision']}: "
                f"{100 * target:.2f} % after {row['our_seconds'][-1]} s with our recipe, after "
                f"{row['plain_seconds'][-1]} s with the reported one",
                flush=True,
            )
    for row in rows:
        pairs = list(zip(row["our_seconds"], row["plain_seconds"], strict=True))
        shares = [ours / plain for ours, plain in pairs if ours is not None]
        reached = len(shares) == rounds
        row["share"] = round(statistics.median(shares), 3) if reached else None
        row["share_range"] = [round(min(shares), 3), round(max(shares), 3)] if reached else None
    return rows


def plain_epochs(model: str, data: Path) -> list[Mapping[str, float]]:
    options = ["--batch", "128", "--no-batch-norm", "--epochs", str(REPORTED_EPOCHS)]
    options += ["--dropout", str(REPORTED_DROPOUT[model])]
    script = str(PEERS / "keras_script.py")
    return measure([sys.executable, script, *options, model, str(data)])["epochs"]


def our_epochs(model: str, precision: str, epochs: int, data: Path) -> list[Mapping[str, float]]:
    options = ["--precision", precision, "--epochs", str(epochs)]
    options += ["--set", json.dumps(CHANGED[model])]
    return measure([sys.executable, "-m", "benchmarks.ours", *options, model, str(data)])["epochs"]


def seconds_until(epochs: Sequence[Mapping[str, float]], target: float) -> float | None:
    """Return the seconds until the end of the first epoch that reaches `target`, or None."""
    spent = itertools.accumulate(epoch["seconds"] for epoch in epochs)
    for seconds, epoch in zip(spent, epochs, strict=True):
        if epoch["val_accuracy"] >= target:
            return round(seconds, 1)
    return None


if __name__ == "__main__":
    run(main)
