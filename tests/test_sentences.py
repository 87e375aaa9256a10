"""The verdict says what the tests show, no more."""

from __future__ import annotations

import pytest

from stages.reporting.sentences import p_text, percent, points, standing, verdict


def pairs(**p_values: float) -> list[dict]:
    """Return comparisons from keywords such as `cnn_lstm=0.01`."""
    named = ((*pair.split("_"), p) for pair, p in p_values.items())
    return [{"a": a, "b": b, "p_holm": p} for a, b, p in named]


CASES = [
    (
        {"cnn": 51, "lstm": 90, "hybrid": 55},
        {"cnn_lstm": 1e-5, "cnn_hybrid": 0.41, "lstm_hybrid": 2e-4},
        "The CNN has the highest test accuracy, 99.49 % (51 errors in 10,000 images), and the"
        " hybrid is not significantly worse (p = 0.41), but the LSTM is (p < 0.001).",
        ["cnn", "hybrid"],
    ),
    (
        {"cnn": 1, "lstm": 2, "hybrid": 3},
        {"cnn_lstm": 1, "cnn_hybrid": 0.6, "lstm_hybrid": 1},
        "The CNN has the highest test accuracy, 99.99 % (1 error in 10,000 images), and the LSTM"
        " and the hybrid are not significantly worse (p ≥ 0.6).",
        ["cnn", "lstm", "hybrid"],
    ),
    (
        {"cnn": 5, "lstm": 5, "hybrid": 40},
        {"cnn_lstm": 1, "cnn_hybrid": 0.01, "lstm_hybrid": 0.02},
        "The CNN and the LSTM share the highest test accuracy, 99.95 % (5 errors in 10,000"
        " images), and the hybrid is significantly worse (p ≤ 0.02).",
        ["cnn", "lstm"],
    ),
    (  # of two equally good models, one beats the third
        {"cnn": 5, "lstm": 5, "hybrid": 40},
        {"cnn_lstm": 1, "cnn_hybrid": 0.01, "lstm_hybrid": 0.06},
        "The CNN and the LSTM share the highest test accuracy, 99.95 % (5 errors in 10,000"
        " images), and the hybrid is significantly worse (p = 0.01).",
        ["cnn", "lstm"],
    ),
    (  # the ensemble alone is best
        {"cnn": 51, "lstm": 67, "hybrid": 47, "ensemble": 38},
        {"cnn_lstm": 0.14, "cnn_hybrid": 0.64, "lstm_hybrid": 0.045, "ensemble_cnn": 0.029,
         "ensemble_lstm": 1e-9, "ensemble_hybrid": 0.0492},
        "The ensemble has the highest test accuracy, 99.62 % (38 errors in 10,000 images), and all"
        " others are significantly worse (p ≤ 0.049); of the single models, the hybrid leads with"
        " 99.53 %, and the CNN is not significantly worse (p = 0.64).",
        ["ensemble"],
    ),
    (  # the ensemble does not beat the CNN
        {"cnn": 50, "lstm": 90, "ensemble": 45},
        {"cnn_lstm": 0.001, "ensemble_cnn": 0.3, "ensemble_lstm": 1e-9},
        "The ensemble has the highest test accuracy, 99.55 % (45 errors in 10,000 images), and the"
        " CNN is not significantly worse (p = 0.3), but the LSTM is (p < 0.001).",
        ["ensemble", "cnn"],
    ),
    ({"cnn": 3}, {}, "The CNN has the highest test accuracy, 99.97 % (3 errors in 10,000 images).",
     ["cnn"]),
]  # fmt: skip


@pytest.mark.parametrize(("errors", "p_values", "text", "marked"), CASES)
def test_the_verdict_is_one_sentence_about_the_marked_models(errors, p_values, text, marked):
    assert verdict(errors, pairs(**p_values), 10_000) == text
    best, alike, _ = standing(errors, pairs(**p_values))
    assert [*best, *alike] == marked


def test_numbers_have_one_convention():
    assert percent(0.99494) == "99.49 %"
    assert [points(x) for x in (0.00244, -0.0024, -0.00001)] == ["+0.24", "−0.24", "+0.00"]
    shown = ["p < 0.001", "p = 0.041", "p = 0.0497", "p = 1"]
    assert [p_text(p) for p in (0.0001, 0.0412, 0.04971, 0.996)] == shown
