"""Scores of one model, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluation.scores import calibration_error, details, reliability, summary
from stages.models.shared.inference import EPSILON

Y = np.array([0, 1, 2, 2])
P = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]], np.float32)


def by_definition(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Compute accuracies, loss, macro F1 and errors from their definitions.

    Means over classes leave out classes without test images.
    """
    guesses = p.argmax(axis=1)
    f1, recall = [], []
    for label in range(p.shape[1]):
        hits = np.sum((guesses == label) & (y == label))
        predicted, true = np.sum(guesses == label), np.sum(y == label)
        if true:
            recall.append(hits / true)
            f1.append(2 * hits / (predicted + true))
    return {
        "accuracy": np.mean(guesses == y),
        "loss": -np.log(p[np.arange(len(y)), y].astype(float)).mean(),
        "macro_f1": np.mean(f1),
        "balanced_accuracy": np.mean(recall),
        "errors": np.sum(guesses != y),
    }


@pytest.mark.parametrize("classes", [4, 5], ids=["a class without images", "all classes"])
def test_summary_follows_the_definitions(classes):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(5), 200).astype(np.float32)
    y = random.integers(0, classes, 200).astype(np.int32)
    got = summary(y, p)
    assert {key: got[key] for key in by_definition(y, p)} == pytest.approx(
        by_definition(y, p), rel=1e-5
    )


def test_details_by_hand():
    figures = details(Y, P, ["a", "b", "c"])
    assert figures["top_2_accuracy"] == 1
    assert figures["confidence_wrong"] == pytest.approx(0.6)
    assert figures["macro_precision"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert figures["confusions"] == [{"actual": "b", "predicted": "a", "images": 1}]


def test_undefined_details_are_none():
    figures = details(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"])
    assert figures["confidence_wrong"] is figures["top_2_accuracy"] is None
    assert figures["confusions"] == []


def test_calibration_error_by_hand():
    y = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    bins = reliability(y, p)
    assert [row["images"] for row in bins] == [1, 3]
    assert calibration_error(bins) == pytest.approx((1 * abs(1 - 0.6) + 3 * abs(2 / 3 - 0.9)) / 4)


def test_confusions_are_ordered_and_contain_errors_only():
    y, guesses = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 1, 0, 0, 0])
    confusions = details(y, np.eye(3)[guesses], "abc")["confusions"]
    assert [tuple(row.values()) for row in confusions] == [("c", "a", 3), ("a", "b", 2)]


def test_the_loss_is_that_of_keras_even_for_a_probability_of_zero(backend):
    y, p = np.array([0, 1, 2, 0]), P.copy()
    p[3] = [0, 0.5, 0.5]
    keras = float(np.mean(backend.losses.sparse_categorical_crossentropy(y, p)))
    assert summary(y, p)["loss"] == pytest.approx(keras, rel=1e-5)
    assert backend.config.epsilon() == EPSILON
