"""Which test images the models get wrong, and what each model says about them.

Everywhere, `predictions` are each model's probabilities, float (n, classes), and `y` are labels,
int (n,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.common.params import ENSEMBLE
from stages.reporting.page import picture

PER_CELL = 8  # images per cell of a confusion matrix
MOST_IMAGES = 400
MOST_PIXELS = 500_000  # of all pictures together, so that the page stays small
SUSPECTS = 24
COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)

Predictions = Mapping[str, np.ndarray]


def chosen_mistakes(y: np.ndarray, predictions: Predictions, values: int) -> list[int]:
    """Return the images of the page's grid, those on which the models disagree first.

    Each cell of each confusion matrix gives up to `PER_CELL` images, the most confident mistakes
    first. If that is too many, each cell gives fewer.

    Parameters
    ----------
    values
        Pixels per image, counting each channel and frame.
    """
    ranks: dict[int, int] = {}
    for probabilities in predictions.values():
        guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        wrong = np.flatnonzero(guesses != y)
        cells: dict[tuple[int, int], int] = {}
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist():
            cell = (int(y[i]), int(guesses[i]))
            rank = cells[cell] = cells.get(cell, 0) + 1
            ranks[i] = min(rank, ranks.get(i, rank))
    room = min(MOST_IMAGES, max(PER_CELL, MOST_PIXELS // values))
    kept = sorted((i for i in ranks if ranks[i] <= PER_CELL), key=lambda i: (ranks[i], i))[:room]
    models = [each.argmax(axis=1) for name, each in predictions.items() if name != ENSEMBLE]
    right = {i: sum(int(guesses[i] == y[i]) for guesses in models) for i in kept}
    return sorted(kept, key=lambda i: (right[i] == 0, -right[i], i))


def shown(
    i: int, x: np.ndarray, y: np.ndarray, predictions: Predictions, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return a test image as a picture, with each model's answer and its probability."""
    answers = []
    for name, probabilities in predictions.items():
        guess = int(probabilities[i].argmax())
        answers.append({
            "model": name,
            "class": guess,
            "name": class_names[guess],
            "probability": float(probabilities[i, guess]),
            "right": guess == int(y[i]),
        })  # fmt: skip
    return {
        "index": i,
        "class": int(y[i]),
        "actual": class_names[y[i]],
        "picture": picture(x[i]),
        "answers": answers,
    }


def suspects(y: np.ndarray, predictions: Predictions) -> list[int]:
    """Return the images on which all single models agree against the label, most sure first."""
    models = [each for name, each in predictions.items() if name != ENSEMBLE]
    guesses = np.stack([each.argmax(axis=1) for each in models])
    agreed = np.flatnonzero((guesses == guesses[0]).all(axis=0) & (guesses[0] != y))
    confidence = np.mean([each[agreed].max(axis=1) for each in models], axis=0)
    return agreed[np.argsort(-confidence, kind="stable")].tolist()


def confusion_matrix(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the number of images by true class (row) and predicted class (column)."""
    matrix = np.zeros((probabilities.shape[1],) * 2, dtype=int)
    np.add.at(matrix, (y, probabilities.argmax(axis=1)), 1)
    return matrix


def disagreements(y: np.ndarray, predictions: Predictions) -> list[dict[str, Any]]:
    """Return how many images exactly these models got wrong, for each set of single models."""
    wrong = {name: p.argmax(axis=1) != y for name, p in predictions.items() if name != ENSEMBLE}
    sets, counts = np.unique(np.stack([*wrong.values()], axis=1), axis=0, return_counts=True)
    rows = [
        {"models": [name for name, is_wrong in zip(wrong, members, strict=True) if is_wrong],
         "images": int(n)}
        for members, n in zip(sets, counts, strict=True)
        if members.any()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (len(row["models"]), -row["images"]))


def answered(y: np.ndarray, probabilities: np.ndarray) -> tuple[list[float], list[float]]:
    """Return shares of the images, and the accuracy on the share with the highest confidence."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == y)[order]
    counts = [max(1, round(share * len(y))) for share in COVERAGES]
    return [count / len(y) for count in counts], [float(right[:count].mean()) for count in counts]
