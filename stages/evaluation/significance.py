"""Confidence intervals and paired tests for comparing models on the same test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from stages.evaluation import CONFIDENCE


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the Wilson score interval (1927) of a proportion, at 95 % confidence."""
    interval = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy difference a − b on the same images.

    Wald's interval with half an observation added to each of the four cells (Agresti & Min, 2005,
    "Simple improved confidence intervals for comparing matched proportions").

    Parameters
    ----------
    only_a, only_b
        Number of images that only a, or only b, classified correctly.
    n
        Number of images.
    """
    b, c, total = only_a + 0.5, only_b + 0.5, n + 2
    difference = (b - c) / total
    error = math.sqrt(b + c - (b - c) ** 2 / total) / total
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    return max(-1.0, float(difference - reach)), min(1.0, float(difference + reach))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test. It is 1 if both counts are 0."""
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple testing by Holm's step-down method (1979)."""
    adjusted, largest, left = [0.0] * len(p_values), 0.0, len(p_values)
    for i in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        largest = max(largest, min(1.0, left * p_values[i]))
        adjusted[i] = largest
        left -= 1
    return adjusted


def compare(right: dict[str, np.ndarray], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Compare pairs of models on the same test images.

    Parameters
    ----------
    right
        For each model, bool (n,): which test images it classified correctly.
    pairs
        One family of tests, corrected together by Holm's method.

    Returns
    -------
    list of dict
        Models ``a`` and ``b``; ``difference``, accuracy of a minus accuracy of b, with its
        ``interval``; ``only_a, only_b, both``, images that only a, only b, or both got wrong;
        McNemar's ``p``, and ``p_holm``.
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
    """Compare all pairs of models, and the ensemble with each model: two families of tests."""
    models = [name for name in right if name != ensemble]
    return compare(right, list(combinations(models, 2))) + compare(
        right, [(ensemble, name) for name in models]
    )
