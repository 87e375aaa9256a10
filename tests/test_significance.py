"""Intervals and tests against independent computations."""

from __future__ import annotations

from itertools import chain, combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from stages.evaluation.significance import compare, holm, mcnemar, paired_interval, wilson_interval


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (9905, 10000), (10, 10)])
def test_wilson_bounds_solve_the_score_equation(k, n):
    z = stats.norm.ppf(0.975)
    for p in wilson_interval(k, n):
        assert (k / n - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 3), (0, 5), (12, 4), (41, 198)])
def test_mcnemar_sums_the_binomial_tail(b, c):
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(b, c) == pytest.approx(min(1, 2 * tail))


def test_holm_is_the_closed_test_of_bonferroni():
    p = [0.01, 0.04, 0.03, 0.2, 0.011]
    subsets = list(chain.from_iterable(combinations(range(5), k) for k in range(1, 6)))
    for i, adjusted in enumerate(holm(p)):
        closed = max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s)
        assert adjusted == pytest.approx(closed)


def test_the_paired_interval_is_walds_with_two_more_pairs():
    b, c, n = 12, 4, 100
    values = np.array([1, -1, 0])
    weights = np.array([b + 0.5, c + 0.5, n - b - c + 1]) / (n + 2)
    mean = (values * weights).sum()
    error = np.sqrt((weights * (values - mean) ** 2).sum() / (n + 2))
    expected = mean + stats.norm.ppf([0.025, 0.975]) * error
    assert paired_interval(b, c, n) == pytest.approx(tuple(expected))


def test_a_comparison_counts_images_and_signs_the_difference():
    right = {"a": np.array([1, 1, 0, 0, 1], bool), "b": np.array([1, 0, 1, 0, 0], bool)}
    (row,) = compare(right, [("a", "b")])
    assert (row["only_a"], row["only_b"], row["both"]) == (1, 2, 1)
    assert row["difference"] == pytest.approx(0.2)
    assert row["interval"][0] < 0.2 < row["interval"][1]
