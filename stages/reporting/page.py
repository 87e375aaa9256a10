"""The parts of the report page: rankings, examples, mistakes, and all figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from stages.common.files import read_csv, write_bytes
from stages.common.params import ENSEMBLE
from stages.reporting import figures

MISTAKES = 4  # most confident mistakes shown per model
BARS = 10  # classes in the chart of one image's probabilities
REACHED = 0.99  # of the last epoch's validation accuracy
LEAST = ("train_loss", "val_loss", "test_loss", "train_seconds", "seconds_per_epoch", "errors",
         "parameters")  # fmt: skip
MOST = ("train_accuracy", "val_accuracy", "test_accuracy", "images_per_second")


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which single models lead each column; several share a tie."""
    models = [row for row in rows if row["model"] != ENSEMBLE]
    leaders = {}
    for column in (*LEAST, *MOST):
        value = (min if column in LEAST else max)(row[column] for row in models)
        leaders[column] = [row["model"] for row in models if row[column] == value]
    return leaders


def learning(history: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the last epoch's validation accuracy, and the first epoch at `REACHED` of it."""
    values = [float(row["val_accuracy"]) for row in history]
    first = next(i for i, value in enumerate(values) if value >= REACHED * values[-1])
    return {"epoch": int(history[first]["epoch"]), "final": values[-1], "epochs": len(values)}


def class_ranking(
    scores: Mapping[str, Sequence[Mapping[str, str]]],
    models: Sequence[str],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the classes that the test set has, hardest first, with each model's accuracy."""
    ranking = [
        {
            "name": class_name,
            "images": int(scores[models[0]][i]["support"]),
            "recall": {name: float(rows[i]["recall"]) for name, rows in scores.items()},
            "mean": float(np.mean([float(scores[name][i]["recall"]) for name in models])),
        }
        for i, class_name in enumerate(class_names)
    ]
    return sorted((row for row in ranking if row["images"]), key=lambda row: row["mean"])


def confident_mistakes(probabilities: np.ndarray, y_true: np.ndarray) -> list[int]:
    """Return the images that a model was surest of and wrong about, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y_true)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:MISTAKES].tolist()


def example(
    i: int,
    x: np.ndarray,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return one test image as a picture, with the probabilities that each model gives it."""
    true, charts = int(y[i]), {}
    for name, probabilities in predictions.items():
        row, guess = probabilities[i], int(probabilities[i].argmax())
        likely = set(np.argsort(-row, kind="stable")[:BARS].tolist())
        likely |= {true} if true not in likely else set()
        charts[name] = [
            {
                "name": class_names[k],
                "share": float(row[k]),
                "kind": "true" if k == true else "wrong" if k == guess else "rest",
            }
            for k in sorted(likely)
        ]
    return {"index": i, "actual": class_names[true], "picture": picture(x[i]), "charts": charts}


def picture(pixels: np.ndarray) -> str:
    """Return an image, uint8 (height, width, 1 or 3), as a base64 PNG."""
    buffer = io.BytesIO()
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    figures.plt.imsave(buffer, shown, cmap="gray", vmin=0, vmax=255, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def draw(rows, details, histories, scores, predictions, y_test, manifest) -> dict[str, Markup]:
    """Draw every figure, save the PNGs, and return the SVGs for the page."""
    class_names = manifest["class_names"]
    intervals = {name: detail["accuracy_interval"] for name, detail in details.items()}
    bins = {name: read_csv(Path(f"plots/calibration/{name}.csv")) for name in predictions}
    recalls = {name: [float(row["recall"]) for row in table] for name, table in scores.items()}
    drawn = {}
    with figures.styled():
        todo = {
            "learning_curves": (lambda: figures.learning_curves(histories),
                                "Learning curves: accuracy and loss against the epoch"),
            "per_class": (lambda: figures.per_class(recalls, class_names),
                          "Classes: accuracy of each model within each class"),
            "calibration": (lambda: figures.reliability(bins),
                            "Calibration: accuracy against confidence"),
            "cost": (lambda: figures.cost(rows, intervals),
                     "Cost: test accuracy against seconds of training"),
        }  # fmt: skip
        for name, predicted in predictions.items():
            matrix = np.zeros((len(class_names),) * 2, dtype=int)
            np.add.at(matrix, (y_test, predicted.argmax(axis=1)), 1)
            todo[f"confusion_{name}"] = (
                lambda matrix=matrix: figures.confusion(matrix, class_names),
                f"Confusion {name}: images of each actual class by the class predicted",
            )
        for key, (make, title) in todo.items():
            figure = make()
            drawn[key] = Markup(figures.as_svg(figure, title))  # noqa: S704  escaped in as_svg
            write_bytes(Path(f"plots/figures/{key}.png"), figures.as_png(figure))
            if key in ("learning_curves", "per_class"):  # nothing in them depends on time
                small = figures.as_png(figure, figures.SMALL_DPI)
                write_bytes(Path(f"plots/readme/{key}.png"), small)
            figures.plt.close(figure)
    return drawn
