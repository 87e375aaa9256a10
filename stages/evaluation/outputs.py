"""Write the scores of all models: metrics, tables and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.arrays import write_array
from stages.common.files import write_csv, write_json
from stages.common.params import ENSEMBLE
from stages.evaluation.scores import (
    CLASS_COLUMNS,
    class_scores,
    confusion_counts,
    details,
    mean_corrupted,
    mistakes,
    reliability,
    summary,
)
from stages.evaluation.significance import compare_all

TABLES = {  # plots/NAME.csv: rows of one model, and their columns
    "confusion": (confusion_counts, ("actual", "predicted", "images")),
    "per_class": (class_scores, CLASS_COLUMNS),
    "calibration": (reliability, ("confidence", "accuracy", "images")),
    "mistakes": (mistakes, ("image", "actual", "predicted")),
}
COMPARED = ("accuracy", "balanced_accuracy", "loss", "macro_f1", "calibration_error")
CORRUPTION_COLUMNS = ("corruption", "strength", "accuracy")
PREDICTIONS = Path("data/predictions")


def write_scores(
    y_true: np.ndarray,
    probabilities: dict[str, np.ndarray],
    class_names: list[str],
    robustness: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write all metrics that follow from the labels (n,) and each model's probabilities.

    `robustness` are the rows of `corruptions.accuracies`, if they were computed.
    """
    write_csv(Path("plots/robustness.csv"), robustness, ("model", *CORRUPTION_COLUMNS))
    for table, (rows_of, columns) in TABLES.items():
        rows = [
            {"model": name} | with_class_names(row, class_names)
            for name, predicted in probabilities.items()
            for row in rows_of(y_true, predicted)
        ]
        write_csv(Path(f"plots/{table}.csv"), rows, ("model", *columns))
    tested = {name: summary(y_true, predicted) for name, predicted in probabilities.items()}
    robust = mean_corrupted(robustness)
    for name, figures in tested.items():
        write_array(PREDICTIONS / f"{name}.npy", probabilities[name])
        print(
            f"{name:8}  test accuracy {100 * figures['accuracy']:.2f} %  loss {figures['loss']:.4f}"
            f"  macro F1 {100 * figures['macro_f1']:.2f} %  "
            f"errors {figures['errors']} of {len(y_true):,}"
        )
    right = {name: predicted.argmax(axis=1) == y_true for name, predicted in probabilities.items()}
    write_json(
        PREDICTIONS / "details.json",
        {
            "models": {
                name: {"errors": tested[name]["errors"]} | details(y_true, predicted, class_names)
                for name, predicted in probabilities.items()
            },
            "comparisons": compare_all(right, ENSEMBLE),
        },
    )
    write_json(
        Path("metrics/test.json"),
        {
            name: {"test": {key: row[key] for key in COMPARED} | robust.get(name, {})}
            for name, row in tested.items()
        },
    )


def with_class_names(row: dict[str, Any], class_names: list[str]) -> dict[str, Any]:
    """Return a table's row with the names of classes instead of their numbers."""
    return row | {
        column: class_names[row[column]]
        for column in ("class", "actual", "predicted")
        if column in row
    }
