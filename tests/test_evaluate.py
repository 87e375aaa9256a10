"""What `evaluate` measures and writes."""

import csv

import numpy as np
import pytest

from stages.evaluate import inference_seconds, write_plots
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
