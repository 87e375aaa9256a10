"""Test figures against computations of their own, in plain NumPy."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from stages.evaluate import measure
from stages.params import MODELS


def figures(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Compute accuracy, loss, macro F1 and errors from their definitions."""
    guess = p.argmax(axis=1)
    f1 = []
    for label in range(p.shape[1]):
        hits = np.sum((guess == label) & (y == label))
        claimed, real = np.sum(guess == label), np.sum(y == label)
        f1.append(2 * hits / (claimed + real) if claimed + real else 0.0)
    return {
        "accuracy": np.mean(guess == y),
        "loss": -np.log(p[np.arange(len(y)), y].astype(float)).mean(),
        "macro_f1": np.mean(f1),
        "errors": np.sum(guess != y),
    }


@pytest.mark.parametrize("missing_class", [False, True])
def test_figures_are_what_their_definitions_say(missing_class):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(5), 200).astype(np.float32)
    y = random.integers(0, 4 if missing_class else 5, 200).astype(np.int32)
    measured = measure(y, p)
    for name, value in figures(y, p).items():
        assert measured[name] == pytest.approx(value, rel=1e-5)


def test_a_perfect_model_has_no_errors():
    y = np.arange(4, dtype=np.int32)
    measured = measure(y, np.eye(4, dtype=np.float32))
    assert measured["errors"] == 0
    assert measured["accuracy"] == measured["macro_f1"] == 1
    assert measured["loss"] == pytest.approx(0, abs=1e-6)


def test_the_stages_figures_are_those_of_its_probabilities(pipeline):
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    y = np.load(pipeline.path("data/prepared/y_test.npy"))
    stored = {
        name: np.load(pipeline.path(f"data/predictions/{name}.npy"))
        for name in (*MODELS, "ensemble")
    }
    for name, p in stored.items():
        assert p.dtype == np.float32
        for key, value in figures(y, p).items():
            assert evaluation[name][key] == pytest.approx(value, rel=1e-5)
    mean = np.mean([stored[name] for name in MODELS], axis=0)
    assert stored["ensemble"] == pytest.approx(mean, abs=1e-6)


def test_the_confusion_file_has_a_row_an_image(pipeline):
    class_names = json.loads(pipeline.read("data/prepared/manifest.json"))["class_names"]
    y = np.load(pipeline.path("data/prepared/y_test.npy"))
    for name in MODELS:
        rows = list(csv.DictReader(pipeline.read(f"plots/confusion/{name}.csv").splitlines()))
        guess = np.load(pipeline.path(f"data/predictions/{name}.npy")).argmax(axis=1)
        assert [row["actual"] for row in rows] == [class_names[label] for label in y]
        assert [row["predicted"] for row in rows] == [class_names[label] for label in guess]


def test_a_damaged_model_ends_in_one_line_and_leaves_the_figures(clone):
    before = clone.read("metrics/evaluation.json")
    path = clone.path("data/models/lstm.keras")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:1000])
    done = clone.stage("evaluate", status=1)
    assert [line[:31] for line in done.stderr.splitlines()] == ["error: data/models/lstm.keras i"]
    assert clone.read("metrics/evaluation.json") == before
