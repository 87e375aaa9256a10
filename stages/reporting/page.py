"""The parts of the report page: rankings, examples, mistakes, and all figures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.image import imsave

from stages.common.files import read_csv, write_bytes
from stages.common.params import ENSEMBLE
from stages.reporting import figures

SHEET = 12  # images in a row of the contact sheet
MISTAKES = 4  # most confident mistakes shown per model
BARS = 10  # classes in the chart of one image's probabilities
REACHED = 0.99  # of the last epoch's validation accuracy
LEAST = ("val_loss", "test_loss", "train_seconds", "seconds_per_epoch", "errors",
         "parameters")  # fmt: skip
MOST = ("train_accuracy", "val_accuracy", "test_accuracy", "images_per_second")

Table = Sequence[Mapping[str, str]]  # the rows of a CSV file


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the single models with the best value of each column. With a tie there are several."""
    models = [row for row in rows if row["model"] != ENSEMBLE]
    leaders = {}
    for column in (*LEAST, *MOST):
        value = (min if column in LEAST else max)(row[column] for row in models)
        leaders[column] = [row["model"] for row in models if row[column] == value]
    return leaders


def learning(history: Table) -> dict[str, Any]:
    """Return the last epoch's validation accuracy, and the first epoch at `REACHED` of it."""
    values = [float(row["val_accuracy"]) for row in history]
    first = next(i for i, value in enumerate(values) if value >= REACHED * values[-1])
    return {"epoch": int(history[first]["epoch"]), "final": values[-1], "epochs": len(values)}


def by_model(path: Path) -> dict[str, Table]:
    """Return the rows of a CSV file for each value of its column `model`."""
    tables: dict[str, list[dict[str, str]]] = {}
    for row in read_csv(path):
        tables.setdefault(row["model"], []).append(row)
    return tables


def contact_sheet(sheet: np.ndarray, class_names: Sequence[str]) -> list[dict[str, str]]:
    """Return each class's name and a picture with some of its training images.

    `sheet` is uint8 (classes, examples, …image), as `prepare` writes it. Unused places are 0.
    """
    shown = max(1, SHEET // math.prod(sheet.shape[2:-3]))  # sequences have several frames
    return [
        {"name": name, "picture": picture(row[:shown])}
        for name, row in zip(class_names, sheet, strict=False)
    ]


def class_ranking(
    scores: Mapping[str, Table], models: Sequence[str], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the classes that have test images, hardest first, with each model's accuracy."""
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
    """Return the indices of the most confident mistakes, the most confident first."""
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
    """Return test image `i` as a picture, with the likely classes and their probabilities by model.

    Parameters
    ----------
    x, y
        All test images, uint8 (n, height, width, channels), and their labels (n,).
    predictions
        Each model's probabilities, float (n, classes).
    """
    true, charts = int(y[i]), {}
    for name, probabilities in predictions.items():
        row, guess = probabilities[i], int(probabilities[i].argmax())
        likely = {true, *np.argsort(-row, kind="stable")[:BARS].tolist()}
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
    """Return an image, uint8 (…, height, width, 1 or 3), as a base64 PNG.

    Images along further axes, such as the frames of a sequence, are shown side by side.
    """
    pixels = np.concatenate(pixels.reshape(-1, *pixels.shape[-3:]), axis=1)
    buffer = io.BytesIO()
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    imsave(buffer, shown, cmap="gray", vmin=0, vmax=255, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def draw(
    rows: Sequence[Mapping[str, Any]],
    histories: Mapping[str, Table],
    scores: Mapping[str, Table],
    bins: Mapping[str, Table],
    predictions: Mapping[str, np.ndarray],
    y_test: np.ndarray,
    class_names: Sequence[str],
) -> dict[str, Markup]:
    """Draw all figures, save them as PNG in `plots/`, and return them as SVG for the page."""
    recalls = {name: [float(row["recall"]) for row in table] for name, table in scores.items()}
    costs = {
        row["model"]: (
            [row["train_seconds"]],
            [row["test_accuracy"]],
            [(row["test_low"], row["test_high"])],
            {"ls": "", "ms": 7} | figures.look(row["model"], [*predictions]),
        )
        for row in rows
    }
    with figures.styled():
        drawn = {
            "learning_curves": (figures.learning_curves(histories),
                                "Learning curves: accuracy and loss per epoch"),
            "per_class": (figures.per_class(recalls, class_names),
                          "Classes: accuracy of each model per class"),
            "calibration": (figures.reliability(bins),
                            "Calibration: accuracy against confidence"),
            "cost": (figures.cost(costs, "test accuracy"),
                     "Cost: test accuracy against training time"),
        }  # fmt: skip
        for name, predicted in predictions.items():
            matrix = np.zeros((len(class_names),) * 2, dtype=int)
            np.add.at(matrix, (y_test, predicted.argmax(axis=1)), 1)
            drawn[f"confusion_{name}"] = (
                figures.confusion(matrix, class_names),
                f"Confusion {name}: test images by true class and predicted class",
            )
        for key, (figure, _) in drawn.items():
            write_bytes(Path(f"plots/figures/{key}.png"), figures.as_png(figure))
        return {
            key: Markup(figures.as_svg(figure, title))  # noqa: S704  escaped in as_svg
            for key, (figure, title) in drawn.items()
        }
