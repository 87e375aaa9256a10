"""The files that `evaluate` writes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from test_scores import P, Y, by_definition

from stages.evaluate import inference_seconds, write_plots

MODELS = ("cnn", "lstm", "hybrid")


def test_the_plots_have_one_row_per_image_and_one_per_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_plots("cnn", Y, P, ["a", "b", "c"])
    with (tmp_path / "plots/confusion/cnn.csv").open(newline="") as file:
        rows = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    assert rows == [("a", "a"), ("b", "a"), ("c", "c"), ("c", "c")]
    with (tmp_path / "plots/per_class/cnn.csv").open(newline="") as file:
        rows = [(row["class"], row["support"]) for row in csv.DictReader(file)]
    assert rows == [("a", "1"), ("b", "1"), ("c", "2")]


def test_inference_is_timed_at_both_batch_sizes_of_a_small_test_set():
    sizes = set()
    seconds = inference_seconds(lambda x: sizes.add(len(x)), np.zeros((7, 2, 2, 1)))
    assert sizes == {1, 256}
    assert all(value > 0 for value in seconds.values())


def test_the_figures_follow_from_the_stored_probabilities(pipeline):
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    class_names = json.loads(pipeline.read("data/prepared/manifest.json"))["class_names"]
    y = np.load(pipeline.path("data/prepared/y_test.npy"))
    stored = {name: np.load(pipeline.path(f"data/predictions/{name}.npy")) for name in evaluation}
    assert list(stored) == [*MODELS, "ensemble"]
    for name, p in stored.items():
        assert p.dtype == np.float32
        for key, value in by_definition(y, p).items():
            assert evaluation[name][key] == pytest.approx(value, rel=1e-5)
        rows = list(csv.DictReader(pipeline.read(f"plots/confusion/{name}.csv").splitlines()))
        assert [row["actual"] for row in rows] == [class_names[label] for label in y]
        guesses = p.argmax(axis=1)
        assert [row["predicted"] for row in rows] == [class_names[guess] for guess in guesses]
    mean = np.mean([stored[name] for name in MODELS], axis=0)
    assert stored["ensemble"] == pytest.approx(mean, abs=1e-6)


def test_a_damaged_model_ends_in_one_line_and_keeps_the_figures(clone):
    before = clone.read("metrics/evaluation.json")
    path = clone.path("data/models/lstm.keras")
    content = path.read_bytes()
    path.unlink()  # not written to: it may be a link into DVC's cache
    path.write_bytes(content[:1000])
    (line,) = clone.stage("evaluate", status=1).stderr.splitlines()
    assert line.startswith("error: data/models/lstm.keras is ")
    assert clone.read("metrics/evaluation.json") == before
