"""Scores of one model on the test set: accuracy, loss, F1, calibration, confusions.

Everywhere, `y_true` are labels, int (n,), and `probabilities` are float (n, classes) with rows that
sum to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from stages.evaluation.significance import wilson_interval
from stages.models.shared.inference import cross_entropy

BINS = 15  # of the calibration error, as in Guo et al. (2017)
FREQUENT = 5  # confusions that are listed
CLASS_COLUMNS = ("class", "precision", "recall", "f1", "support")


def summary(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, float | int]:
    """Return the most important test metrics.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy`` (the mean accuracy within the classes), ``macro_f1`` and
        ``calibration_error`` as fractions, ``loss`` (mean cross-entropy in nats), and ``errors``, a
        number of images. Means over classes leave out those without test images.
    """
    right = probabilities.argmax(axis=1) == y_true
    per_class = class_scores(y_true, probabilities)
    return {
        "accuracy": float(right.mean()),
        "errors": int((~right).sum()),
        "loss": cross_entropy(y_true, probabilities),
        "balanced_accuracy": macro(per_class, "recall"),
        "macro_f1": macro(per_class, "f1"),
        "calibration_error": calibration_error(reliability(y_true, probabilities)),
    }


def details(
    y_true: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return more metrics of a model, for the report.

    ``top_2_accuracy`` is None with two classes, where it would always be 1. A mean confidence is
    None if no image was right, or none was wrong. Macro averages are means over the classes that
    have test images.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y_true
    per_class = class_scores(y_true, probabilities)
    classes = np.arange(probabilities.shape[1])
    confusions = [
        row for row in confusion_counts(y_true, probabilities) if row["actual"] != row["predicted"]
    ]
    return {
        "accuracy_interval": wilson_interval(int(right.sum()), len(right)),
        "macro_precision": macro(per_class, "precision"),
        "top_2_accuracy": float(top_k_accuracy_score(y_true, probabilities, k=2, labels=classes))
        if len(classes) > 2
        else None,
        "confidence_right": _mean(confidence[right]),
        "confidence_wrong": _mean(confidence[~right]),
        "confusions": [
            row | {"actual": class_names[row["actual"]], "predicted": class_names[row["predicted"]]}
            for row in sorted(confusions, key=lambda row: -row["images"])[:FREQUENT]
        ],
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def class_scores(y_true: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float | int]]:
    """Return one row per class: ``class`` (its number), precision, recall, f1, support.

    A precision without a predicted image, or a recall without a test image, is 0.
    """
    classes = np.arange(probabilities.shape[1])
    scores = precision_recall_fscore_support(
        y_true, probabilities.argmax(axis=1), labels=classes, zero_division=0
    )
    return [
        dict(zip(CLASS_COLUMNS, (value.item() for value in values), strict=True))
        for values in zip(classes, *scores, strict=True)
    ]


def macro(per_class: Sequence[dict[str, float | int]], score: str) -> float:
    """Return the mean of a score over the classes that have test images."""
    return float(np.mean([row[score] for row in per_class if row["support"]]))


def confusion_counts(y_true: np.ndarray, probabilities: np.ndarray) -> list[dict[str, int]]:
    """Return one row per pair of classes that occurs: ``actual, predicted``, number of images."""
    pairs = np.stack([y_true, probabilities.argmax(axis=1)], axis=1)
    return [
        {"actual": int(actual), "predicted": int(predicted), "images": int(images)}
        for (actual, predicted), images in zip(
            *np.unique(pairs, axis=0, return_counts=True), strict=True
        )
    ]


def mistakes(y_true: np.ndarray, probabilities: np.ndarray) -> list[dict[str, int]]:
    """Return one row per misclassified test image: its index, actual and predicted class."""
    guesses = probabilities.argmax(axis=1)
    return [
        {"image": int(i), "actual": int(y_true[i]), "predicted": int(guesses[i])}
        for i in np.flatnonzero(guesses != y_true)
    ]


def mean_corrupted(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return ``robustness`` of each model: its mean accuracy over all corruptions and strengths.

    `rows` come from `corruptions.accuracies`. Strength 0, the images as they are, is left out.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["strength"]:
            values.setdefault(row["model"], []).append(row["accuracy"])
    return {name: {"robustness": float(np.mean(each))} for name, each in values.items()}


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
