"""Checkpoints: a training that goes on from one ends in the same bytes; a bad one is never used."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT, names, tiny_arrays

from stages import checkpoints
from stages.checkpoints import DIGEST, KEPT, MODULES, Checkpoint, Progress, code_digest
from stages.files import StageError
from stages.models import build
from stages.training import Arrays, fit, state

EPOCHS = 3
AFTER = 2  # epochs, the training is broken off
SMALL = {"train.batch_size": 64, "cnn.filters": [4, 8], "cnn.dense": 8, "lstm.units": [8],
         "hybrid.filters": [4], "hybrid.units": [8]}  # fmt: skip
RECIPES = {
    "cnn": {"cnn.shift": 1, "train.batch_size": 128},
    "cnn, sgd": {"train.optimizer": "sgd", "train.schedule": "cosine", "cnn.learning_rate": 0.1},
    "cnn, bfloat16": {"train.precision": "mixed_bfloat16", "train.clip_norm": 1.0},
    "lstm": {"lstm.bidirectional": True, "lstm.units": [8, 8], "lstm.label_smoothing": 0.1},
    "lstm, rmsprop": {"train.optimizer": "rmsprop", "train.schedule": "constant"},
    "hybrid, adamw": {"train.optimizer": "adamw", "hybrid.weight_decay": 0.01},
    "lstm, stopping": {"train.early_stopping": 1, "train.schedule": "constant",
                       "train.optimizer": "sgd", "train.momentum": 0.0, "lstm.learning_rate": 5.0},
}  # fmt: skip


@pytest.fixture
def training(make_params):
    """Return a function that starts a training; it gives the model, its rows to come, and a way
    to look at the last state.
    """
    arrays = tiny_arrays(per_class=60)
    data = Arrays(arrays["x_train"][..., None], arrays["y_train"])
    held_out = Arrays(arrays["x_test"][..., None], arrays["y_test"])

    def start(recipe: str, keep, progress=None):
        name = recipe.split(",")[0]
        params = make_params(SMALL | RECIPES[recipe])
        keras.utils.set_random_seed(params.seed)
        keras.config.set_dtype_policy(params.train.precision)
        section = getattr(params, name)
        model = build(name, (12, 12, 1), 3, section)
        rows = fit(
            model, data, held_out, epochs=EPOCHS, seed=params.seed, train=params.train,
            section=section, batch_parts=2, progress=progress, keep=keep,
        )  # fmt: skip
        return model, rows

    yield start
    keras.config.set_dtype_policy("float32")


def figures(rows: list[dict]) -> list[dict]:
    return [{key: row[key] for key in row if key != "seconds"} for row in rows]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_goes_on_to_the_same_bytes(training, tmp_path, recipe):
    states: list[Progress] = []
    model, rows = training(recipe, states.append)
    expected = list(rows)
    after = min(AFTER, len(expected) - 1)
    Checkpoint(recipe, {"of": recipe}, tmp_path).save(states[after - 1])

    found = Checkpoint(recipe, {"of": recipe}, tmp_path).load()
    assert found.rows == expected[:after]
    other, rest = training(recipe, states.append, found)
    assert figures(list(rest)) == figures(expected[after:])
    assert [v.numpy().tobytes() for v in other.variables] == [
        v.numpy().tobytes() for v in model.variables
    ]
    for one, two in zip(states[len(expected) - 1].variables, states[-1].variables, strict=True):
        assert one.tobytes() == two.tobytes(), "the optimizer's, too"


def test_early_stopping_stays_stopped(training, tmp_path):
    """A kill after the last epoch: nothing is left to train, the best weights come back."""
    checkpoint = Checkpoint("lstm", {}, tmp_path)
    model, rows = training("lstm, stopping", checkpoint.save)
    assert len(list(rows)) < EPOCHS
    other, rest = training("lstm, stopping", checkpoint.save, checkpoint.load())
    assert list(rest) == []
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(one, two)
