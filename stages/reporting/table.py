"""The result table: one row per model, from the metrics files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.files import read_json
from stages.common.params import ENSEMBLE

RESULTS = Path("metrics/results.csv")
REPORT = Path("plots/report.html")
SUMMED = ("parameters", "train_seconds", "seconds_per_epoch")  # the ensemble's costs


def collect() -> list[dict[str, Any]]:
    """Return one row per model, and one for the ensemble, from the metrics files.

    Accuracies and F1 are fractions, losses are in nats, times in seconds. The ensemble's costs are
    the sums of its models' costs. Figures that it does not have are "".
    """
    rows: list[dict[str, Any]] = []
    for name, tested in read_json(Path("metrics/evaluation.json")).items():
        rows.append({
            "model": name,
            **(sums(rows) if name == ENSEMBLE else training(name)),
            "test_accuracy": tested["accuracy"],
            "test_loss": tested["loss"],
            "macro_f1": tested["macro_f1"],
            "errors": tested["errors"],
        })  # fmt: skip
    return rows


def training(name: str) -> dict[str, Any]:
    """Return one model's training and validation figures, and the cost of its training."""
    train = read_json(Path(f"metrics/train/{name}.json"))
    timing = read_json(Path(f"metrics/timing/{name}.json"))
    return {
        "parameters": train["parameters"],
        "epochs": train["epochs"],
        "train_accuracy": train["train"]["accuracy"],
        "train_loss": train["train"]["loss"],
        "val_accuracy": train["val"]["accuracy"],
        "val_loss": train["val"]["loss"],
        "train_seconds": timing["train_seconds"],
        "seconds_per_epoch": timing["seconds_per_epoch"],
        "images_per_second": timing["examples_per_second"],
    }


def sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ensemble's costs: the sums of its models' costs."""
    epochs = {row["epochs"] for row in rows}
    columns = list(rows[0])[1 : list(rows[0]).index("test_accuracy")]
    row: dict[str, Any] = dict.fromkeys(columns, "")
    row |= {column: round(sum(model[column] for model in rows), 3) for column in SUMMED}
    return row | {"epochs": epochs.pop() if len(epochs) == 1 else ""}
