"""Which test images the page shows, and what it says about them."""

from __future__ import annotations

import numpy as np
import pytest

from stages.reporting.mistakes import (
    MOST_IMAGES,
    PER_CELL,
    answered,
    chosen_mistakes,
    confusion_matrix,
    disagreements,
    suspects,
)

Y = np.array([0, 0, 1, 1, 2, 2])
GUESSES = {"a": [0, 1, 1, 2, 1, 2], "b": [0, 1, 0, 2, 1, 2], "ensemble": [0, 1, 1, 2, 1, 2]}
SURE = {"a": [0.9, 0.6, 0.9, 0.8, 0.7, 0.5], "b": [0.9, 0.7, 0.5, 0.8, 0.9, 0.5]}


def probabilities(guesses, sure) -> np.ndarray:
    """Return rows with the probability `sure` for the class in `guesses`."""
    rows = np.repeat((1 - np.array(sure))[:, None] / 2, 3, axis=1)
    rows[np.arange(len(rows)), guesses] = sure
    return rows


PREDICTIONS = {
    name: probabilities(guesses, SURE.get(name, SURE["a"])) for name, guesses in GUESSES.items()
}


def test_images_on_which_models_disagree_come_first():
    assert chosen_mistakes(Y, PREDICTIONS, values=4) == [2, 1, 3, 4]


def test_suspects_are_agreed_on_and_the_most_confident_come_first():
    assert suspects(Y, PREDICTIONS) == [3, 4, 1]  # mean confidence 0.8, 0.8, 0.65


def test_disagreements_are_the_cells_of_mcnemars_table():
    rows = disagreements(Y, PREDICTIONS)
    assert rows == [{"models": ["b"], "images": 1}, {"models": ["a", "b"], "images": 3}]


def test_the_most_confident_are_answered_first():
    shares, accuracies = answered(Y, PREDICTIONS["a"])
    assert (shares[0], accuracies[0]) == (0.5, pytest.approx(2 / 3))  # images 0, 2 and 3
    assert (shares[-1], accuracies[-1]) == (1, pytest.approx(0.5))


def test_every_cell_of_a_confusion_matrix_has_its_images():
    random = np.random.default_rng(0)
    y = random.integers(0, 10, 5000)
    many = {name: probabilities(random.integers(0, 3, 5000), random.uniform(0.4, 1, 5000))
            for name in ("a", "b")}  # fmt: skip
    many = {name: np.pad(p, [(0, 0), (0, 7)]) for name, p in many.items()}
    chosen = chosen_mistakes(y, many, values=100)
    assert len(chosen) == len(set(chosen)) <= MOST_IMAGES
    for p in many.values():
        matrix = confusion_matrix(y, p)
        assert matrix.sum() == 5000
        guesses = p.argmax(axis=1)
        for actual, predicted in np.argwhere(matrix):
            if actual != predicted:
                cell = [i for i in chosen if (y[i], guesses[i]) == (actual, predicted)]
                assert len(cell) >= min(PER_CELL, matrix[actual, predicted])
    assert len(chosen_mistakes(y, many, values=50_000)) == 10
