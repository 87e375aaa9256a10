"""The files that `evaluate` writes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_scores import P, Y, by_definition

from stages.evaluation.outputs import write_scores
from stages.models.shared.inference import inference_seconds

MODELS = ("cnn", "lstm", "hybrid")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_the_tables_hold_all_models_with_class_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = np.eye(3, dtype=np.float32)[Y]
    write_scores(Y, {"cnn": P, "ensemble": right}, ["a", "b", "c"])
    tables = {path.stem: table(path.read_text()) for path in tmp_path.glob("plots/*.csv")}
    confusion = [tuple(row.values()) for row in tables["confusion"] if row["model"] == "cnn"]
    assert confusion == [
        ("cnn", "a", "a", "1"), ("cnn", "b", "a", "1"), ("cnn", "c", "c", "2")
    ]  # fmt: skip
    supports = [(row["model"], row["class"], row["support"]) for row in tables["per_class"][:4]]
    assert supports == [
        ("cnn", "a", "1"), ("cnn", "b", "1"), ("cnn", "c", "2"), ("ensemble", "a", "1")
    ]  # fmt: skip
    mistake = {"model": "cnn", "image": "1", "actual": "b", "predicted": "a"}
    assert tables["mistakes"] == [mistake]
    assert {row["model"] for row in tables["calibration"]} == {"cnn", "ensemble"}


def test_without_a_mistake_the_table_of_mistakes_has_its_heading_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scores(Y, {"cnn": np.eye(3)[Y], "ensemble": np.eye(3)[Y]}, ["a", "b", "c"])
    assert Path("plots/mistakes.csv").read_text() == "model,image,actual,predicted\n"


def test_inference_is_timed_at_both_batch_sizes_of_a_small_test_set():
    sizes = set()
    seconds = inference_seconds(lambda x: sizes.add(len(x)), np.zeros((7, 2, 2, 1)))
    assert sizes == {1, 256}
    assert all(value > 0 for value in seconds.values())


def test_the_figures_follow_from_the_stored_probabilities(pipeline):
    tested = json.loads(pipeline.read("metrics/test.json"))
    details = json.loads(pipeline.read("data/predictions/details.json"))["models"]
    class_names = json.loads(pipeline.read("data/prepared/manifest.json"))["class_names"]
    y = np.load(pipeline.path("data/prepared/y_test.npy"))
    stored = {name: np.load(pipeline.path(f"data/predictions/{name}.npy")) for name in tested}
    confusion, mistakes = (table(pipeline.read(f"plots/{name}.csv"))
                           for name in ("confusion", "mistakes"))  # fmt: skip
    assert list(stored) == [*MODELS, "ensemble"]
    for name, p in stored.items():
        assert p.dtype == np.float32
        wanted = by_definition(y, p)
        others = {"calibration_error", "robustness"}
        assert tested[name]["test"].keys() - others == wanted.keys() - {"errors"}
        for key, value in wanted.items():
            assert (tested[name]["test"] | details[name])[key] == pytest.approx(value, rel=1e-5)
        guesses = p.argmax(axis=1)
        counted = {
            (row["actual"], row["predicted"]): int(row["images"])
            for row in confusion if row["model"] == name
        }  # fmt: skip
        pairs = zip(y, guesses, strict=True)
        assert counted == Counter((class_names[a], class_names[b]) for a, b in pairs)
        wrong = [int(row["image"]) for row in mistakes if row["model"] == name]
        assert wrong == np.flatnonzero(guesses != y).tolist()
    mean = np.mean([stored[name] for name in MODELS], axis=0)
    assert stored["ensemble"] == pytest.approx(mean, abs=1e-6)


def test_a_damaged_model_ends_in_one_line_and_keeps_the_figures(clone):
    before = clone.read("metrics/test.json")
    path = clone.path("data/models/lstm.keras")
    content = path.read_bytes()
    path.unlink()  # not written to: it may be a link into DVC's cache
    path.write_bytes(content[:1000])
    (line,) = clone.stage("evaluate", status=1).stderr.splitlines()
    assert line.startswith("error: data/models/lstm.keras is ")
    assert clone.read("metrics/test.json") == before
