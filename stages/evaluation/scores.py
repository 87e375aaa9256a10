"""Scores of one model on the test set: accuracy, loss, F1, calibration, confusions.

Everywhere, `y_true` are labels, int (n,), and `probabilities` are float (n, classes) with rows that
sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from stages.evaluation.significance import wilson_interval

BINS = 15  # of the calibration error, as in Guo et al. (2017)
FREQUENT = 5  # confusions that are listed


def summary(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, float | int]:
    """Return the test figures that `dvc metrics diff` shows.

    Returns
    -------
    dict
        ``accuracy, macro_f1, calibration_error`` as fractions, ``loss`` (mean cross-entropy in
        nats), and ``errors``, a number of images.
    """
    guesses = probabilities.argmax(axis=1)
    rows = probabilities.astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)
    per_class = class_scores(y_true, probabilities)
    return {
        "accuracy": float(accuracy_score(y_true, guesses)),
        "loss": float(log_loss(y_true, rows, labels=np.arange(rows.shape[1]))),
        "macro_f1": float(np.mean(per_class["f1"])),
        "calibration_error": calibration_error(reliability(y_true, probabilities)),
        "errors": int((guesses != y_true).sum()),
    }


def details(
    y_true: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return more figures of a model, for the report.

    ``top_2_accuracy`` is None with two classes, where it would always be 1. A mean confidence is
    None if no image was right, or none was wrong.
    """
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = guesses == y_true
    per_class = class_scores(y_true, probabilities)
    classes = np.arange(probabilities.shape[1])
    return {
        "accuracy_interval": wilson_interval(int(right.sum()), len(right)),
        "macro_precision": float(np.mean(per_class["precision"])),
        "macro_recall": float(np.mean(per_class["recall"])),
        "top_2_accuracy": float(top_k_accuracy_score(y_true, probabilities, k=2, labels=classes))
        if len(classes) > 2
        else None,
        "confidence_right": _mean(confidence[right]),
        "confidence_wrong": _mean(confidence[~right]),
        "confusions": [
            {"actual": class_names[a], "predicted": class_names[b], "images": images}
            for a, b, images in frequent_confusions(y_true, guesses, len(classes))
        ],
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def class_scores(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall, f1 and support, each (classes,). Undefined values are 0."""
    scores = precision_recall_fscore_support(
        y_true,
        probabilities.argmax(axis=1),
        labels=np.arange(probabilities.shape[1]),
        zero_division=0,
    )
    return dict(zip(("precision", "recall", "f1", "support"), scores, strict=True))


def frequent_confusions(
    y_true: np.ndarray, guesses: np.ndarray, num_classes: int, n: int = FREQUENT
) -> list[tuple[int, int, int]]:
    """Return the `n` most frequent confusions as (actual, predicted, images)."""
    matrix = confusion_matrix(y_true, guesses, labels=np.arange(num_classes))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(int(a), int(b), int(matrix[a, b])) for a, b in pairs if matrix[a, b]]


def reliability(y_true: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float | int]]:
    """Group images into bins of equal width by confidence, and leave out empty bins.

    Returns
    -------
    list of dict
        One per bin: mean ``confidence``, mean ``accuracy``, number of ``images``.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == y_true
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == i].mean()),
            "accuracy": float(right[bins == i].mean()),
            "images": int((bins == i).sum()),
        }
        for i in np.unique(bins)
    ]


def calibration_error(bins: Sequence[dict[str, float | int]]) -> float:
    """Return the expected calibration error (Naeini et al., 2015; Guo et al., 2017).

    This is the mean distance between confidence and accuracy, weighted by the images per bin.
    """
    total = sum(row["images"] for row in bins)
    return float(
        sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in bins) / total
    )
