"""A single run next to its study: when it counts as low, and what is said about it."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from stages.common.files import read_csv
from stages.reporting import targets
from stages.reporting.targets import against_study, is_low, missed_target

IMAGES = 10_000
CELL = {"accuracy_mean": 0.99, "accuracy_std": 0.0005, "n": 5}


def test_no_recorded_seed_of_the_comparison_is_called_low():
    """`dvc repro` on another machine, or with another seed, gives no false alarm."""
    found = json.loads((ROOT / "studies/results/comparison.json").read_text(encoding="utf-8"))
    rows = read_csv(ROOT / "studies/results/comparison.csv")
    checked = 0
    for cell in found:
        place = {key: str(cell[key]) for key in ("dataset", "model", "epochs")}
        for row in rows:
            if place.items() <= row.items():
                accuracy = float(row["accuracy"])
                assert not is_low(accuracy, IMAGES, cell)
                assert "within the range" in against_study(cell["model"], accuracy, IMAGES, cell)
                checked += 1
    assert checked == len(rows) > 100


@pytest.mark.parametrize(
    ("accuracy", "low"),
    [(0.9886, False), (0.9885, False), (0.98849, True), (0.95, True), (0.999, False)],
)
def test_low_is_more_than_three_standard_deviations_below_the_mean(accuracy, low):
    assert is_low(accuracy, IMAGES, CELL) == low
    said = against_study("cnn", accuracy, IMAGES, CELL)
    words = "lower than" if low else "higher than" if accuracy > 0.9915 else "within"
    assert f"is {words} the range of the seeds (99.00 ± 0.05 %, 5 seeds)" in said


@pytest.mark.parametrize(("wrong", "low"), [(2, False), (3, True)])
def test_low_is_at_least_three_images(wrong, low):
    cell = CELL | {"accuracy_std": 0.0}
    assert is_low(0.99 - wrong / IMAGES, IMAGES, cell) == low


def test_a_target_is_missed_only_below_it(tmp_path, monkeypatch):
    path = tmp_path / "targets.yaml"
    path.write_text("- {dataset: mnist, model: cnn, epochs: 10, accuracy: 0.99}", encoding="utf-8")
    monkeypatch.setattr(targets, "TARGETS", path)
    assert missed_target("mnist", "cnn", 10, 0.98999) == 0.99
    assert missed_target("mnist", "cnn", 10, 0.99) is None
    assert missed_target("mnist", "cnn", 20, 0.5) is None
