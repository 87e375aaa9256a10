"""The committed figures reach the floors of studies/floors.yaml, or these tests say which do not.

Slow by mark, though quick: a recipe is improved with runs that take hours, and what does not reach
its floor yet must not stop a change that has nothing to do with it.
"""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import ROOT

from stages.expected import FLOORS, Floor, missed, read_entries
from stages.params import ENSEMBLE

pytestmark = pytest.mark.slow
COMPARISON = ROOT / "studies/results/comparison.json"
SEEDS = 5  # a floor is held to the mean of so many
MEANS = [floor for floor in read_entries(ROOT / FLOORS, Floor) if floor.model != ENSEMBLE]


@pytest.mark.parametrize("floor", MEANS, ids=lambda f: f"{f.dataset}-{f.model}-{f.epochs}")
def test_the_comparisons_means_reach_their_floors(floor):
    cells = {
        (cell["dataset"], cell["model"], cell["epochs"]): cell
        for cell in json.loads(COMPARISON.read_text(encoding="utf-8"))
    }
    cell = cells.get((floor.dataset, floor.model, floor.epochs))
    assert cell is not None, "not run yet: make study STUDY=comparison"
    assert cell["n"] == SEEDS
    assert cell["accuracy_mean"] >= floor.accuracy - 1e-9


def test_the_committed_run_reaches_its_floors():
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    evaluation = json.loads((ROOT / "metrics/evaluation.json").read_text(encoding="utf-8"))
    rows = [
        {"model": model, "epochs": params["epochs"], "test_accuracy": figures["accuracy"]}
        for model, figures in evaluation.items()
    ]
    assert missed(params["dataset"], rows) == []
