"""Checkpoints: interrupted trainings end in the same bytes; bad checkpoints are never used."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT, names, set_keys, tiny_arrays

from stages.common.arrays import Arrays
from stages.common.params import parse_params
from stages.training import checkpoints
from stages.training.checkpoints import DIGEST, KEPT, Checkpoint, Progress
from stages.training.session import Training, train_model

pytestmark = pytest.mark.usefixtures("backend")
AFTER = 2  # epochs, the training is interrupted
SMALL = {
    "epochs": 3, "train.batch_size": 128, "train.threads": 2, "cnn.filters": [4, 8], "lstm.shift": 2
}  # fmt: skip
RECIPES = {
    "cnn": {"cnn.shift": 1},
    "cnn, sgd": {"train.optimizer": "sgd", "train.schedule": "cosine", "cnn.learning_rate": 0.1},
    "cnn, bfloat16": {"train.precision": "mixed_bfloat16", "train.clip_norm": 1.0,
                      "train.class_weight": "balanced"},
    "lstm": {"lstm.bidirectional": True, "lstm.units": [8, 8], "lstm.label_smoothing": 0.1},
    "lstm, rmsprop": {"train.optimizer": "rmsprop", "train.schedule": "constant"},
    "hybrid, adamw": {"train.optimizer": "adamw", "hybrid.weight_decay": 0.01},
    "lstm, stopping": {"epochs": 12, "train.early_stopping": 1, "train.schedule": "constant",
                       "train.optimizer": "sgd", "train.momentum": 0.0, "lstm.learning_rate": 5.0},
}  # fmt: skip
MARKS = {"cnn, bfloat16": [], "lstm, stopping": pytest.mark.extra,
         "hybrid, adamw": pytest.mark.extra}  # the others run at night  # fmt: skip
FACTS = {"data": "digests"}


class KillError(Exception):
    """Stands for a kill: it leaves the training with nothing but its checkpoint."""


@pytest.fixture
def train(tiny_document, tmp_path, monkeypatch) -> Callable[..., Training]:
    """Return a function that trains in an empty folder; `after` epochs it is interrupted."""
    monkeypatch.chdir(tmp_path)
    x, y, x_val, y_val = tiny_arrays(per_class=60).values()
    kept = np.sort(np.r_[np.flatnonzero(y == 0)[:40], np.flatnonzero(y > 0)])  # imbalanced
    data = Arrays(x[kept, ..., None], y[kept]), Arrays(x_val[..., None], y_val)

    def run(recipe: str, after: int | None = None, changes=None, facts=FACTS) -> Training:
        def interrupt(history):
            if len(history) == after:
                raise KillError

        params = parse_params(set_keys(tiny_document, SMALL | RECIPES[recipe] | (changes or {})))
        return train_model(
            recipe.split(",")[0], params, *data, 3,
            checkpoint_facts=facts, on_epoch=interrupt, log=lambda _: None,
        )  # fmt: skip

    yield run
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(each, marks=MARKS.get(each, pytest.mark.slow)) for each in RECIPES],
)
def test_an_interrupted_training_ends_in_the_same_bytes(train, recipe):
    def result(training: Training) -> tuple:
        weights = [variable.numpy().tobytes() for variable in training.model.variables]
        optimizer_too = [array.tobytes() for array in training.checkpoint.load().variables]
        training.checkpoint.remove()
        return [row | {"seconds": 0} for row in training.history], weights, optimizer_too

    expected = result(train(recipe))
    with pytest.raises(KillError):
        train(recipe, after=min(AFTER, len(expected[0]) - 1))
    training = train(recipe)
    assert training.resumed == 1
    assert result(training) == expected


def load_from(checkpoint: Checkpoint, content: bytes) -> Progress:
    checkpoint.path.write_bytes(content)
    return checkpoint.load()


def test_a_finished_early_stop_is_not_continued(train):
    """A kill after the last epoch leaves nothing to train. The best weights are restored."""
    stopped, again = train("lstm, stopping"), train("lstm, stopping")
    assert len(stopped.history) < RECIPES["lstm, stopping"]["epochs"]
    assert again.history == stopped.history
    for one, two in zip(again.model.get_weights(), stopped.model.get_weights(), strict=True):
        assert np.array_equal(one, two)


def test_the_key_changes_with_data_and_parameters_of_the_training_only(train, monkeypatch):
    def key(recipe: str = "cnn", facts=FACTS, **changes) -> str:
        with pytest.raises(KillError) as found:
            train(recipe, changes=changes, facts=facts)
        return str(found.value)

    def stop(checkpoint):
        raise KillError(checkpoint.key)

    monkeypatch.setattr(Checkpoint, "load", stop)
    first = key()
    assert key(**{"lstm.units": [9], "prepare.split_seed": 9}) == first
    changes = {
        "epochs": 2, "seed": 2, "train.batch_size": 64, "train.threads": 1, "cnn.dropout": 0.1,
        "train.class_weight": "balanced",
    }  # fmt: skip
    others = [key(**{name: value}) for name, value in changes.items()]
    others += [key("lstm"), key(facts={"data": "other digests"})]
    assert len({first, *others}) == 1 + len(others)


def test_the_key_changes_with_the_code_of_the_stage_only(tmp_path, monkeypatch):
    """The files of the stage are those in dvc.yaml."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    monkeypatch.setattr(checkpoints, "STAGES", tmp_path / "stages")
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train_cnn"]
    deps = [tmp_path / dep for dep in stage["deps"] if dep.startswith("stages/")]
    key = Checkpoint("cnn", {}).key
    for path in (tmp_path / "stages").rglob("*.py"):
        path.write_bytes(path.read_bytes() + b"# changed\n")
        old, key = key, Checkpoint("cnn", {}).key
        assert (key != old) == any(path.is_relative_to(dep) for dep in deps), path


@pytest.fixture
def saved(tmp_path) -> Checkpoint:
    checkpoint = Checkpoint("cnn", {"seed": 1}, tmp_path)
    rows = [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5}]
    variables = [np.arange(12, dtype=np.float32).reshape(3, 4), np.array(7, np.int32)]
    checkpoint.save(Progress(rows, variables, [np.ones(3, np.float32)], resumed=2))
    return checkpoint


def test_a_checkpoint_is_read_as_it_was_saved(saved):
    found = saved.load()
    assert found.rows == [{"epoch": 1, "loss": 0.1 + 0.2, "seconds": 1.5}]
    assert found.resumed == 2
    assert [value.dtype for value in found.variables] == [np.float32, np.int32]
    assert np.array_equal(found.variables[0], np.arange(12).reshape(3, 4))
    assert found.variables[1].shape == ()
    assert np.array_equal(found.best_weights[0], np.ones(3))


def test_a_damaged_checkpoint_is_reported_and_not_used(saved, capsys):
    good, random = saved.path.read_bytes(), np.random.default_rng(0)
    bad = [good[:size] for size in (0, 1, 32, 33, len(good) // 2, len(good) - 1)]
    bad += [good + b"x", b"x" * len(good)]
    for at in (0, 31, 32, len(good) - 1, *random.integers(0, len(good), 40)):
        bad.append(good[:at] + bytes([good[at] ^ 1 << random.integers(8)]) + good[at + 1 :])
    for content in bad:
        assert load_from(saved, content) is None
        said = rf"ignoring the damaged checkpoint {saved.path} .*starts at epoch 1\n"
        assert re.fullmatch(said, capsys.readouterr().out)


def test_a_renamed_checkpoint_of_another_training_is_not_used(saved, tmp_path, capsys):
    other = Checkpoint("cnn", {"seed": 2}, tmp_path)
    assert other.path != saved.path
    assert other.load() is None
    assert capsys.readouterr().out == ""
    saved.path.rename(other.path)
    assert other.load() is None
    assert "it belongs to a different training" in capsys.readouterr().out


def test_a_checkpoint_is_not_unpickled(saved, capsys):
    arrays = io.BytesIO()
    np.savez(arrays, facts=np.array([None], object))
    assert load_from(saved, DIGEST(arrays.getvalue()).digest() + arrays.getvalue()) is None
    assert "Object arrays cannot be loaded" in capsys.readouterr().out


def test_only_the_newest_checkpoints_of_a_model_are_kept(tmp_path):
    empty = Progress([], [], None)
    other_model = Checkpoint("lstm", {}, tmp_path)
    other_model.save(empty)
    made = [Checkpoint("cnn", {"seed": seed}, tmp_path) for seed in range(KEPT + 3)]
    for age, checkpoint in enumerate(made):
        checkpoint.save(empty)
        os.utime(checkpoint.path, (age, age))
    made[-1].save(empty)
    kept = [checkpoint.path.name for checkpoint in made[-KEPT - 1 :]]
    assert names(tmp_path) == sorted([*kept, other_model.path.name])
