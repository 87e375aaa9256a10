"""Stage `evaluate`: score the models and their ensemble on the test set.

    python -m stages.evaluate

The only stage that scores on the test set. The ensemble is the mean of the models' probabilities.
Writes

- `metrics/test.json`: a few figures per model, for `dvc metrics diff`;
- `plots/confusion.csv`, `plots/per_class.csv`, `plots/calibration.csv`, `plots/mistakes.csv`: all
  models in one table each, for `dvc plots` and the review;
- `data/predictions/`: probabilities, float32, and `details.json` with all other figures;
- `data/timing/inference.json`: seconds per image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.common.arrays import read_manifest, read_split, write_array
from stages.common.cli import run_stage
from stages.common.files import write_csv, write_json
from stages.common.params import ENSEMBLE, load_params
from stages.evaluation.scores import (
    CLASS_COLUMNS,
    class_scores,
    confusion_counts,
    details,
    mistakes,
    reliability,
    summary,
)
from stages.evaluation.significance import compare_all
from stages.training.runtime import choose_threads, configure

TABLES = {  # plots/NAME.csv: rows of one model, and their columns
    "confusion": (confusion_counts, ("actual", "predicted", "images")),
    "per_class": (class_scores, CLASS_COLUMNS),
    "calibration": (reliability, ("confidence", "accuracy", "images")),
    "mistakes": (mistakes, ("image", "actual", "predicted")),
}
COMPARED = ("accuracy", "balanced_accuracy", "loss", "macro_f1", "calibration_error")


def main() -> None:
    params = load_params()
    threads = choose_threads(params.train.threads, batch_size=1, batch_norm=False)
    configure(threads, params.seed)
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import inference_seconds, predict

    class_names = read_manifest()["class_names"]
    test = read_split("test")
    probabilities, seconds = {}, {}
    for name in params.models:
        model = load_model(Path(f"data/models/{name}.keras"))
        probabilities[name] = predict(model, test.x, workers=threads.inter_op)
        seconds[name] = inference_seconds(model.predict_on_batch, test.x)
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)
    seconds[ENSEMBLE] = {
        batch: sum(seconds[name][batch] for name in params.models)
        for batch in next(iter(seconds.values()))
    }
    write_scores(test.y, probabilities, class_names)
    write_json(
        Path("data/timing/inference.json"),
        {"seconds_per_image": seconds, "threads": threads.as_dict()},
    )


def write_scores(
    y_true: np.ndarray, probabilities: dict[str, np.ndarray], class_names: list[str]
) -> None:
    """Write all figures that follow from the labels (n,) and each model's probabilities."""
    for table, (rows_of, columns) in TABLES.items():
        rows = [
            {"model": name} | with_class_names(row, class_names)
            for name, predicted in probabilities.items()
            for row in rows_of(y_true, predicted)
        ]
        write_csv(Path(f"plots/{table}.csv"), rows, ("model", *columns))
    tested = {name: summary(y_true, predicted) for name, predicted in probabilities.items()}
    for name, figures in tested.items():
        write_array(Path(f"data/predictions/{name}.npy"), probabilities[name])
        print(
            f"{name:8}  test accuracy {100 * figures['accuracy']:.2f} %  loss {figures['loss']:.4f}"
            f"  macro F1 {100 * figures['macro_f1']:.2f} %  "
            f"errors {figures['errors']} of {len(y_true):,}"
        )
    right = {name: predicted.argmax(axis=1) == y_true for name, predicted in probabilities.items()}
    write_json(
        Path("data/predictions/details.json"),
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
        {name: {"test": {key: row[key] for key in COMPARED}} for name, row in tested.items()},
    )


def with_class_names(row: dict[str, Any], class_names: list[str]) -> dict[str, Any]:
    """Return a table's row with the names of classes instead of their numbers."""
    return row | {
        column: class_names[row[column]]
        for column in ("class", "actual", "predicted")
        if column in row
    }


if __name__ == "__main__":
    run_stage(main)
