"""What a test result is worth: intervals, paired comparisons of models, calibration.

A model's test result is `right`, bool (n,), in the order of the test set; `probabilities` are
float (n, classes) with rows that sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

CONFIDENCE = 0.95
BINS = 15  # of the calibration error, as Guo et al. (2017) have it
FREQUENT = 5  # confusions that are worth a name


def summary(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, float | int]:
    """Return the few figures of a model that `dvc metrics diff` shows.

    Returns
    -------
    dict
        ``accuracy, loss`` (mean cross-entropy, nats), ``macro_f1, calibration_error`` as
        fractions, and ``errors``, a count.
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
    """Return the further figures of a model, for the report.

    ``top_2_accuracy`` is None with two classes, of which it would always be 1; a mean confidence
    is None where no image was right, or none wrong.
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
    """Return precision, recall, f1 and support, each (classes,); 0 where it is undefined."""
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
    """Return the `n` most frequent (actual, predicted, images), a tie in the classes' order."""
    matrix = confusion_matrix(y_true, guesses, labels=np.arange(num_classes))
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(int(a), int(b), int(matrix[a, b])) for a, b in pairs if matrix[a, b]]


# --- intervals and tests ------------------------------------------------------------------


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of a proportion."""
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Return the interval of the difference of two paired proportions, a's minus b's.

    Agresti & Min (2005), "Simple improved confidence intervals for comparing matched
    proportions": Wald's interval with half an observation added to each of the four cells.

    Parameters
    ----------
    only_a, only_b
        Pairs in which a alone, or b alone, was right.
    n
        All pairs.
    """
    b, c, total = only_a + 0.5, only_b + 0.5, n + 2
    difference = (b - c) / total
    error = math.sqrt(b + c - (b - c) ** 2 / total) / total
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    return max(-1.0, float(difference - reach)), min(1.0, float(difference + reach))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (a binomial one); 1 without a pair."""
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down method (1979)."""
    adjusted, largest, left = [0.0] * len(p_values), 0.0, len(p_values)
    for i in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        largest = max(largest, min(1.0, left * p_values[i]))
        adjusted[i] = largest
        left -= 1
    return adjusted


def compare(right: dict[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Compare models by the images that each got right; `pairs` are one family of tests.

    Returns
    -------
    list of dict
        ``a, b, difference`` (accuracy of a minus that of b), its ``interval``, the images that
        ``only_a`` or ``only_b`` got wrong, or ``both`` did, ``p`` and ``p_holm``.
    """
    rows = []
    for a, b in pairs:
        wrong_a, wrong_b = ~right[a], ~right[b]
        only_a, only_b = int((wrong_a & ~wrong_b).sum()), int((wrong_b & ~wrong_a).sum())
        rows.append({
            "a": a,
            "b": b,
            "difference": (only_b - only_a) / len(wrong_a),
            "interval": paired_interval(only_b, only_a, len(wrong_a)),
            "only_a": only_a,
            "only_b": only_b,
            "both": int((wrong_a & wrong_b).sum()),
            "p": mcnemar(only_a, only_b),
        })  # fmt: skip
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
    return rows


def compare_all(right: dict[str, np.ndarray], ensemble: str) -> list[dict[str, Any]]:
    """Compare each two models, and the ensemble with each: two families of tests."""
    models = [name for name in right if name != ensemble]
    return compare(right, list(combinations(models, 2))) + compare(
        right, [(ensemble, name) for name in models]
    )


# --- calibration --------------------------------------------------------------------------


def reliability(y_true: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float | int]]:
    """Return the bins (equally wide, in (0, 1]) of confidence that hold an image.

    Returns
    -------
    list of dict
        ``confidence`` and ``accuracy``, means over the bin's ``images``.
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

    The mean distance of confidence and accuracy over the bins, weighted by their images.
    """
    total = sum(row["images"] for row in bins)
    return float(
        sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in bins) / total
    )
