"""Checkpoints: a training that goes on from one ends in the same bytes; a bad one is never used."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT, names, tiny_arrays

from stages.checkpoints import DIGEST, KEPT, MODULES, Checkpoint, Progress
from stages.files import StageError
from stages.models import build
from stages.training import Arrays, fit

AFTER = 2  # epochs, the training is broken off
SMALL = {"epochs": 3, "train.batch_size": 64, "cnn.filters": [4, 8]}
RECIPES = {
    "cnn": {"cnn.shift": 1, "train.batch_size": 128},
    "cnn, sgd": {"train.optimizer": "sgd", "train.schedule": "cosine", "cnn.learning_rate": 0.1},
    "cnn, bfloat16": {"train.precision": "mixed_bfloat16", "train.clip_norm": 1.0},
    "lstm": {"lstm.bidirectional": True, "lstm.units": [8, 8], "lstm.label_smoothing": 0.1},
    "lstm, rmsprop": {"train.optimizer": "rmsprop", "train.schedule": "constant"},
    "hybrid, adamw": {"train.optimizer": "adamw", "hybrid.weight_decay": 0.01},
    "lstm, stopping": {"epochs": 12, "train.early_stopping": 1, "train.schedule": "constant",
                       "train.optimizer": "sgd", "train.momentum": 0.0, "lstm.learning_rate": 5.0},
}  # fmt: skip

FAST = ("cnn, bfloat16", "hybrid, adamw", "lstm, stopping")  # together they have most of it


@pytest.fixture
def training(make_params):
    """Return a function that starts a training; it gives the model and its rows to come."""
    arrays = tiny_arrays(per_class=60)
    data = Arrays(arrays["x_train"][..., None], arrays["y_train"])
    held_out = Arrays(arrays["x_test"][..., None], arrays["y_test"])

    def start(recipe: str, keep, progress=None, changes=None):
        name = recipe.split(",")[0]
        params = make_params(SMALL | RECIPES[recipe] | (changes or {}))
        keras.utils.set_random_seed(params.seed)
        keras.config.set_dtype_policy(params.train.precision)
        section = getattr(params, name)
        model = build(name, (12, 12, 1), 3, section)
        rows = fit(
            model, data, held_out, epochs=params.epochs, seed=params.seed, train=params.train,
            section=section, batch_parts=2, progress=progress, keep=keep,
        )  # fmt: skip
        return model, rows

    yield start
    keras.config.set_dtype_policy("float32")


def figures(rows: list[dict]) -> list[dict]:
    return [{key: row[key] for key in row if key != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "recipe",
    [
        recipe if recipe in FAST else pytest.param(recipe, marks=pytest.mark.slow)
        for recipe in RECIPES
    ],
)
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
    assert len(list(rows)) < RECIPES["lstm, stopping"]["epochs"]
    other, rest = training("lstm, stopping", checkpoint.save, checkpoint.load())
    assert list(rest) == []
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(one, two)


def test_a_training_that_diverges_keeps_its_last_good_checkpoint(training, tmp_path):
    checkpoint = Checkpoint("lstm", {}, tmp_path)
    _, rows = training("lstm, rmsprop", checkpoint.save)
    next(rows)
    good = checkpoint.path.read_bytes()
    found = checkpoint.load()
    next(value for value in found.variables if value.ndim == 2)[:] = np.nan  # a kernel
    _, rest = training("lstm, rmsprop", checkpoint.save, found)
    with pytest.raises(StageError, match=r"lstm: the loss is .* epoch 2, at learning rate"):
        next(rest)
    assert checkpoint.path.read_bytes() == good


def test_a_finite_loss_far_above_guessing_is_divergence_too(training):
    changes = {"lstm.learning_rate": 1e4, "train.optimizer": "sgd"}
    _, rows = training("lstm, rmsprop", None, changes=changes)
    with pytest.raises(StageError, match=r"the loss is \d.* epoch \d, .*1e\+04.*try a smaller"):
        list(rows)


# --- the file -----------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Checkpoint:
    checkpoint = Checkpoint("cnn", {"seed": 1}, tmp_path)
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5}]
    variables = [np.arange(12, dtype=np.float32).reshape(3, 4), np.array(7, np.int32)]
    checkpoint.save(Progress(rows, variables, [np.ones(3, np.float32)], resumed=2))
    return checkpoint


def test_what_was_saved_comes_back(saved):
    found = saved.load()
    assert found.rows == [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5}]
    assert found.resumed == 2
    assert [value.dtype for value in found.variables] == [np.float32, np.int32]
    assert np.array_equal(found.variables[0], np.arange(12).reshape(3, 4))
    assert found.variables[1].shape == ()
    assert np.array_equal(found.best_weights[0], np.ones(3))


def damages(content: bytes) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    flipped = {}
    for at in (0, 31, 32, len(content) - 1, *random.integers(0, len(content), 40)):
        changed = bytearray(content)
        changed[at] ^= 1 << int(random.integers(8))
        flipped[f"bit of byte {at}"] = bytes(changed)
    cut = {f"{n} bytes": content[:n] for n in (0, 1, 32, 33, len(content) // 2, len(content) - 1)}
    return flipped | cut | {"longer": content + b"x", "not one at all": b"x" * len(content)}


def test_a_damaged_checkpoint_is_told_in_a_line_and_not_used(saved, capsys):
    for what, content in damages(saved.path.read_bytes()).items():
        saved.path.write_bytes(content)
        assert saved.load() is None, what
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 1, what
        assert said[0].startswith(f"{saved.path} is damaged"), what


def test_another_trainings_checkpoint_is_not_used_be_it_renamed(saved, tmp_path, capsys):
    other = Checkpoint("cnn", {"seed": 2}, tmp_path)
    assert other.path != saved.path
    assert other.load() is None
    assert capsys.readouterr().out == ""
    saved.path.rename(other.path)
    assert other.load() is None
    assert "another training's" in capsys.readouterr().out


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_runs_no_code(saved, tmp_path, capsys):
    """One that somebody made, its digest right."""
    mark = tmp_path / "executed"
    for pickled in (np.array([Bomb(mark)], object), None):
        packed = io.BytesIO()
        if pickled is None:
            pickle.dump(Bomb(mark), packed)
        else:
            np.savez(packed, facts=pickled)
        content = packed.getvalue()
        saved.path.write_bytes(DIGEST(content).digest() + content)
        assert saved.load() is None
        assert "is damaged" in capsys.readouterr().out
        assert not mark.exists()


def test_old_checkpoints_of_the_same_model_go(tmp_path):
    other_model = Checkpoint("cnn-big", {}, tmp_path)
    other_model.save(Progress([], [], None))
    made = [Checkpoint("cnn", {"seed": seed}, tmp_path) for seed in range(KEPT + 3)]
    for age, checkpoint in enumerate(made):
        checkpoint.save(Progress([], [], None))
        os.utime(checkpoint.path, (age, age))
    made[-1].save(Progress([], [], None))
    kept = [checkpoint.path.name for checkpoint in made[-KEPT - 1 :]]
    assert names(tmp_path) == sorted([*kept, other_model.path.name])


# --- the key ------------------------------------------------------------------------------


def test_the_code_in_the_key_is_that_of_the_training_stages():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train_cnn"]
    listed = [dep for dep in stage["deps"] if dep.startswith("stages/")]
    assert listed == [f"stages/{name}.py" for name in MODULES]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"epochs": 2}, {"train.batch_size": 64}, {"train.threads": 1}, {"cnn.dropout": 0.1},
                {"prepare.split_seed": 2},
            )
        ),
    ],
)  # fmt: skip
def test_a_training_with_other_parameters_starts_anew(clone, changes):
    """Checkpoints are left by trainings that cannot write their model."""
    models = clone.path("data/models")
    shutil.rmtree(models)
    models.write_text("in the way")
    clone.stage("train", "cnn", status=1)
    first = names(clone.path("data/checkpoints"))
    clone.set(changes)
    clone.stage("prepare")
    assert "continuing" not in clone.stage("train", "cnn", status=1).stdout
    assert len(names(clone.path("data/checkpoints"))) == 2
    models.unlink()
    clone.set({})
    clone.stage("prepare")
    done = clone.stage("train", "cnn")
    assert "cnn: continuing after epoch 4 of 4" in done.stdout
    assert json.loads(clone.read("metrics/timing/cnn.json"))["resumed"] == 1
    assert len(names(clone.path("data/checkpoints"))) == 1
    assert first[0] not in names(clone.path("data/checkpoints"))
