"""What `evaluate` measures and writes."""

import csv
import json

import numpy as np
import pytest

from stages.evaluate import inference_seconds, write_plots
from stages.params import MODELS
from stages.statistics import details, summary

Y = np.array([0, 1, 2, 2])
P = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]], np.float32)


def test_summary_by_hand():
    figures = summary(Y, P)
    assert figures["accuracy"] == 0.75
    assert figures["errors"] == 1
    assert figures["loss"] == pytest.approx(-np.log([0.7, 0.3, 0.7, 0.5]).mean(), rel=1e-6)
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_details_by_hand():
    figures = details(Y, P, ["a", "b", "c"])
    assert figures["top_2_accuracy"] == 1
    assert figures["confidence_wrong"] == pytest.approx(0.6)
    assert figures["macro_recall"] == pytest.approx(2 / 3)
    assert figures["confusions"] == [{"actual": "b", "predicted": "a", "images": 1}]


def test_all_right_has_no_confidence_when_wrong():
    figures = details(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"])
    assert figures["confidence_wrong"] is None
    assert figures["top_2_accuracy"] is None
    assert figures["confusions"] == []


def test_plots_have_a_row_an_image_and_a_row_a_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_plots("cnn", Y, P, ["a", "b", "c"])
    with (tmp_path / "plots/confusion/cnn.csv").open(newline="") as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)][1] == ("b", "a")
    with (tmp_path / "plots/per_class/cnn.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    assert [row["support"] for row in rows] == ["1", "1", "2"]


def test_inference_is_timed_at_both_batch_sizes_of_a_small_test_set():
    sizes = set()
    seconds = inference_seconds(lambda x: sizes.add(len(x)), np.zeros((7, 2, 2, 1)))
    assert sizes == {1, 256}
    assert all(value > 0 for value in seconds.values())


# --- the stage, in the pipeline -----------------------------------------------------------


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
    measured = summary(y, p)
    for name, value in figures(y, p).items():
        assert measured[name] == pytest.approx(value, rel=1e-5)


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
