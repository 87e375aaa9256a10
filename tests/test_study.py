"""A study run as a user runs it: on digits, with Ray, in a copy of the project."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from stages.params import MODELS
from conftest import TINY, Project

pytest.importorskip("ray", reason="Ray is not installed: studies/requirements.txt")

GRID = [
    {"dataset": ["digits"], "model": list(MODELS), "epochs": [1], "seed": [1]},
    {"dataset": ["digits"], "model": ["lstm"], "epochs": [1], "seed": [2]},
]


def write_study(project: Project, name: str = "tiny", **changes) -> str:
    """Write `studies/NAME.yaml` with the smallest models, and return its path."""
    study = {"description": "a test", "evaluate": "test", "grid": GRID} | changes
    path = f"studies/{name}.yaml"
    project.path(path).write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def rows(project: Project, name: str = "tiny") -> list[dict[str, str]]:
    with project.path(f"studies/results/{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def studied(tmp_path_factory, tiny_document, environment) -> Project:
    """A copy of the project in which a study has run, each trial on all cores."""
    made = Project(tmp_path_factory.mktemp("study") / "project", tiny_document, environment)
    made.said = made.stage("study", write_study(made), "--cpus", "0").stdout
    return made


def assert_same_figures(studied: Project, pipeline: Project) -> None:
    """Every figure and the thread setting of a seed's trials are those of the pipeline's run."""
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    found = {row["model"]: row for row in rows(studied) if row["seed"] == "1"}
    assert set(found) == set(MODELS)
    for model, row in found.items():
        validated = json.loads(pipeline.read(f"metrics/train/{model}.json"))
        timing = json.loads(pipeline.read(f"metrics/timing/{model}.json"))
        for figure in ("accuracy", "loss", "macro_f1", "errors"):
            assert row[figure] == str(evaluation[model][figure]), f"{model} {figure}"
        assert row["val_accuracy"] == str(validated["val"]["accuracy"])
        assert row["val_loss"] == str(validated["val"]["loss"])
        assert row["parameters"] == str(validated["parameters"])
        threads = timing["threads"]
        setting = f"{threads['inter_op']}×{threads['intra_op']}/{threads['batch_parts']}"
        assert row["threads"] == setting


def test_a_trial_is_the_pipelines_run_to_the_last_digit(studied, pipeline):
    assert_same_figures(studied, pipeline)


@pytest.mark.slow
def test_a_trial_of_real_size_on_one_core_is_the_pipelines_run_too(project):
    changes = {
        "train.threads": 1, "epochs": 2, "cnn.filters": [32, 64], "cnn.dense": 128,
        "lstm.units": [128], "hybrid.filters": [32, 64], "hybrid.units": [128],
    }  # fmt: skip
    project.set(changes)
    project.stage("prepare")
    for model in MODELS:
        project.stage("train", model)
    project.stage("evaluate")
    grid = {"dataset": ["digits"], "model": list(MODELS), "seed": [1]}
    project.stage("study", write_study(project, grid=grid))
    assert_same_figures(project, project)
