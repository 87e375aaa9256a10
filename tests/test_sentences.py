"""The verdict says what the tests show, no more."""

from __future__ import annotations

import pytest

from stages.reporting.sentences import p_text, percent, points, verdict


def scores(**errors: int) -> dict:
    return {name: {"errors": n, "accuracy": 1 - n / 10_000} for name, n in errors.items()}


def pairs(**p_values: float) -> list[dict]:
    """Return comparisons from keywords such as `cnn_lstm=0.01`."""
    named = ((*pair.split("_"), p) for pair, p in p_values.items())
    return [{"a": a, "b": b, "p_holm": p} for a, b, p in named]


@pytest.mark.parametrize(
    ("errors", "p_values", "text"),
    [
        (
            {"cnn": 51, "lstm": 90, "hybrid": 55},
            {"cnn_lstm": 1e-5, "cnn_hybrid": 0.41, "lstm_hybrid": 2e-4},
            "The CNN has the highest test accuracy, 99.49 % (51 errors in 10,000 images). It is not"
            " significantly better than the hybrid (p = 0.41); both beat the LSTM (p < 0.001).",
        ),
        (  # the CNN does not beat the LSTM significantly
            {"cnn": 60, "lstm": 70, "hybrid": 50},
            {"cnn_lstm": 0.2, "cnn_hybrid": 0.3, "lstm_hybrid": 0.01},
            "The hybrid has the highest test accuracy, 99.50 % (50 errors in 10,000 images). It is"
            " not significantly better than the CNN (p = 0.3); it beats the LSTM (p = 0.01).",
        ),
        (
            {"cnn": 1, "lstm": 2, "hybrid": 3},
            {"cnn_lstm": 1, "cnn_hybrid": 0.6, "lstm_hybrid": 1},
            "The CNN has the highest test accuracy, 99.99 % (1 error in 10,000 images). It is not"
            " significantly better than the LSTM or the hybrid (p ≥ 0.6).",
        ),
        (
            {"cnn": 5, "lstm": 5, "hybrid": 40},
            {"cnn_lstm": 1, "cnn_hybrid": 0.01, "lstm_hybrid": 0.02},
            "The CNN and the LSTM share the highest test accuracy, 99.95 % (5 errors in 10,000"
            " images). They beat the hybrid (p ≤ 0.02).",
        ),
        (  # of two equally good models, one beats the third
            {"cnn": 5, "lstm": 5, "hybrid": 40},
            {"cnn_lstm": 1, "cnn_hybrid": 0.01, "lstm_hybrid": 0.06},
            "The CNN and the LSTM share the highest test accuracy, 99.95 % (5 errors in 10,000"
            " images). The CNN beats the hybrid (p = 0.01).",
        ),
        (
            {"cnn": 50, "lstm": 90, "ensemble": 30},
            {"cnn_lstm": 0.001, "ensemble_cnn": 0.012, "ensemble_lstm": 1e-9},
            "The CNN has the highest test accuracy, 99.50 % (50 errors in 10,000 images). It beats"
            " the LSTM (p = 0.001). The ensemble (mean of their probabilities) makes 30 errors,"
            " 20 fewer than the CNN (significant, p = 0.012).",
        ),
    ],
)
def test_the_verdict_follows_the_tests(errors, p_values, text):
    assert " ".join(verdict(scores(**errors), pairs(**p_values), 10_000)) == text


def test_numbers_have_one_convention():
    assert percent(0.99494) == "99.49 %"
    assert [points(x) for x in (0.00244, -0.0024, -0.00001)] == ["+0.24", "−0.24", "+0.00"]
    shown = ["p < 0.001", "p = 0.041", "p = 0.0497", "p = 1"]
    assert [p_text(p) for p in (0.0001, 0.0412, 0.04971, 0.996)] == shown
