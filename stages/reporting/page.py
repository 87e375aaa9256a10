"""The parts of the report page: pictures, curves, rankings of classes and all figures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from stages.common.files import read_csv, write_bytes
from stages.evaluation.significance import wilson_interval
from stages.reporting import figures

SHEET = 12  # images in a row of the contact sheet
FAINT = 0.02  # smaller probabilities, and losses of probability, are not drawn
REACHED = 0.99  # of the last epoch's validation accuracy

Table = Sequence[Mapping[str, str]]  # the rows of a CSV file


def sparkline(history: Table) -> dict[str, Any]:
    """Return validation accuracies as points of a curve, from (0, 24) to (100, 0)."""
    values = np.array([float(row["val_accuracy"]) for row in history])
    low, high = values.min(), values.max()
    heights = 22 - 20 * (values - low) / (high - low or 1)
    places = np.linspace(2, 98, len(values)) if len(values) > 1 else [50]
    points = [f"{x:.1f},{y:.1f}" for x, y in zip(places, heights, strict=True)]
    return {"points": " ".join(points), "first": values[0], "last": values[-1]}


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


def by_corruption(rows: Table) -> dict[str, dict[str, float]]:
    """Return for each corruption each model's mean accuracy over the strengths from 1 on."""
    kinds: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["strength"] != "0":
            values = kinds.setdefault(row["corruption"], {}).setdefault(row["model"], [])
            values.append(float(row["accuracy"]))
    return {
        kind: {name: float(np.mean(values)) for name, values in models.items()}
        for kind, models in kinds.items()
    }


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
    """Return the classes that have test images, hardest first.

    Returns
    -------
    list of dict
        ``name``, number of ``images``, ``mean`` accuracy of `models`, and ``recall``: for each
        model the accuracy within the class and the ends of its 95 % interval.
    """
    ranking = []
    for i, class_name in enumerate(class_names):
        images = int(scores[models[0]][i]["support"])
        if images:
            recalls = {name: float(rows[i]["recall"]) for name, rows in scores.items()}
            ranking.append({
                "name": class_name,
                "images": images,
                "mean": float(np.mean([recalls[name] for name in models])),
                "recall": {
                    name: (value, *wilson_interval(round(value * images), images))
                    for name, value in recalls.items()
                },
            })  # fmt: skip
    return sorted(ranking, key=lambda row: row["mean"])


def picture(pixels: np.ndarray, stacked: bool = False) -> str:
    """Return an image, uint8 (…, height, width, 1 or 3), as a base64 PNG.

    Images along further axes, such as the frames of a sequence, are shown side by side, or below
    each other if `stacked`.
    """
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    pixels = np.concatenate(frames, axis=0 if stacked else 1)
    buffer = io.BytesIO()
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(shown)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def draw(drawings: Mapping[str, tuple[Callable[[], Figure], str]], title: str) -> dict[str, Markup]:
    """Make figures, save them as PNG in `plots/figures/`, and return them as SVG for the page.

    `drawings` are functions that make a figure, and its alternative text, by name. The PNGs have
    the page's `title`, because people show them elsewhere.
    """
    made = {}
    with figures.styled():
        for key, (make, text) in drawings.items():
            figure = make()
            made[key] = Markup(figures.as_svg(figure, text))  # noqa: S704  escaped in as_svg
            write_bytes(Path(f"plots/figures/{key}.png"), figures.as_png(figure, title=title))
    return made


def costs(rows: Sequence[Mapping[str, Any]]) -> dict[str, figures.Points]:
    """Return the training time and test accuracy of each model, as `figures.cost` draws them."""
    names = [row["model"] for row in rows]
    return {
        row["model"]: (
            [row["train_seconds"]],
            [row["test_accuracy"]],
            [(row["test_low"], row["test_high"])],
            {"ls": "", "ms": 7} | figures.look(row["model"], names),
        )
        for row in rows
    }


def explained(
    explanation: Mapping[str, Any], x: np.ndarray, class_names: Sequence[str], steps: str
) -> list[dict[str, Any]]:
    """Return the values of one model's explanation as coloured cells, one entry per image.

    Parameters
    ----------
    explanation
        As returned by `explanations.explain`.
    x
        All test images, uint8 (n, …, height, width, channels).
    steps
        What a time step is: row, column or frame.

    Returns
    -------
    list of dict
        ``index`` (of the test image), ``picture``, ``rows`` and ``columns`` (of the grid),
        ``cells``: those worth drawing, each with its place, its ``share`` (0 to 1) and a text; and
        ``texts`` and ``losses``: the tables behind the drawing. ``losses`` are the points of
        probability that hiding each place costs, as rows of text.
    """
    belief, entries = explanation["kind"] == "belief", []
    for index, values in zip(explanation["images"], explanation["values"], strict=True):
        grid = np.array(values)
        rows, columns = grid.shape
        if belief:
            texts = [
                f"{class_names[top]}, {100 * grid[i, top]:.0f} %"
                for i, top in enumerate(grid.argmax(axis=1))
            ]
        else:
            row, column = np.unravel_index(grid.argmax(), grid.shape)
            texts = [f"{100 * grid.max():.0f}", f"{100 * (row + 0.5) / rows:.0f} % from the top, "
                     f"{100 * (column + 0.5) / columns:.0f} % from the left"]  # fmt: skip
            grid = np.tile(grid, math.prod(x.shape[1:-3]))  # over each frame of a sequence
        cells = []
        for row, column in np.argwhere(grid >= FAINT).tolist():
            share = float(grid[row, column])
            text = f"−{100 * share:.0f} points if hidden here"
            if belief:
                text = f"after {steps} {row + 1}: {class_names[column]}, {100 * share:.0f} %"
            cells.append({"row": row, "column": column, "share": share, "text": text})
        entries.append({
            "index": index,
            "picture": picture(x[index], stacked=belief),
            "rows": rows,
            "columns": grid.shape[1],
            "cells": cells,
            "texts": texts,
            "losses": [[f"{100 * value:.0f}" for value in line] for line in values],
        })  # fmt: skip
    return entries
