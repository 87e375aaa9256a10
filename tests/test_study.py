"""A study run as a user runs it: on digits, with Ray, in a copy of the project."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest
import yaml
from conftest import ROOT, TINY, Project

from stages.expected import FLOORS, PUBLISHED
from stages.files import StageError
from stages.params import MODELS, PARAMS_FILE
from stages.study.cluster import has_ray
from stages.study.driver import (
    check_cores,
    check_last_batch,
    cores_of_a_trial,
    make_trial_job,
    prepare_all,
    report_missing,
)
from stages.study.file import Study, trials
from stages.study.worker import run_alike, versions
from studies.measure import NEEDED, timed_study

if not has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)

GRID = [
    {"dataset": ["digits"], "model": list(MODELS), "seed": [1]},
    {"dataset": ["digits"], "model": ["lstm"], "seed": [2]},
]
TOO_DEEP = [4] * 9  # more convolution blocks than an image has room for


def write_study(project: Project, **changes) -> str:
    """Write a study of the smallest models, `studies/tiny.yaml`, and return its path."""
    study = {"description": "a test", "evaluate": "test", "grid": GRID} | changes
    path = "studies/tiny.yaml"
    project.path(path).write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def rows(project: Project) -> list[dict[str, str]]:
    with project.path("studies/results/tiny.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def finished(project: Project) -> dict[Path, int]:
    """Return the trials that are on disk, and when each was written."""
    folder = project.path("studies/trials")  # and in it, with a dot, what is being written
    return {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")}


@pytest.fixture(scope="module")
def studied(tmp_path_factory, tiny_document, environment) -> Project:
    """A copy of the project in which a study, each trial on all cores, was killed and run again."""
    made = Project(tmp_path_factory.mktemp("study") / "project", tiny_document, environment)
    command = [sys.executable, "-m", "stages.study", write_study(made), "--cpus", "0"]
    process = subprocess.Popen(command, cwd=made.folder, env=environment, stdout=subprocess.DEVNULL)
    while not finished(made):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made.kept = finished(made)
    made.said = made.run(*command).stdout
    made.done = finished(made)  # before a test adds to them
    return made


def test_a_killed_study_goes_on_where_it_was(studied):
    assert 1 <= len(studied.kept) < 4
    assert f"4 trials, of which {len(studied.kept)} are done" in studied.said
    assert len(studied.done) == 4
    kept = {path: studied.done[path] for path in studied.kept}
    assert kept == studied.kept, "not written again"


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


def test_a_larger_grid_runs_what_is_new_and_a_failure_is_told(studied):
    before = finished(studied)
    grown = [
        *GRID,
        {"dataset": ["digits"], "model": ["lstm"], "seed": [3]},
        {"dataset": ["digits"], "model": ["cnn"], "seed": [1], "cnn.filters": [TOO_DEEP]},
    ]
    done = studied.stage("study", write_study(studied, grid=grown), "--cpus", "0", status=1)
    assert "6 trials, of which 4 are done" in done.stdout
    assert "[2/2]" in done.stdout
    missing, error = done.stderr.splitlines()[-2:]
    assert f"digits cnn epochs={TINY['epochs']} seed=1" in missing
    assert "convolution blocks" in missing
    assert "2 attempts" in missing
    log = studied.path(missing.split("; ")[-1].removesuffix(")"))
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert error == "error: 1 of 6 trials are missing; run the study again"
    now = finished(studied)
    assert len(now) == 5
    assert {path: now[path] for path in before} == before
    assert len(rows(studied)) == 5
    cells = json.loads(studied.read("studies/results/tiny.json"))
    (lstm,) = (cell for cell in cells if cell["model"] == "lstm")
    mean, deviation = (100 * lstm[f"accuracy_{part}"] for part in ("mean", "std"))
    assert f"| {mean:.2f} ± {deviation:.2f} |" in done.stdout, "the table, at the end"


def test_results_of_what_is_done_can_be_had_without_training(studied):
    before = finished(studied)
    grown = [*GRID, {"dataset": ["digits"], "model": ["lstm"], "seed": [9]}]
    studied.path("studies/results/tiny.csv").unlink()
    done = studied.stage("study", write_study(studied, grid=grown), "--cpus", "0", "--results")
    assert "5 trials, of which 4 are done" in done.stdout
    assert len(rows(studied)) == 4
    assert finished(studied) == before


def test_results_are_a_row_a_trial_a_cell_and_a_page(studied):
    cells = json.loads(studied.read("studies/results/tiny.json"))
    lstm = next(cell for cell in cells if cell["model"] == "lstm")
    mine = [row for row in rows(studied) if row["model"] == "lstm"]
    accuracies = [float(row["accuracy"]) for row in mine]
    assert lstm["n"] == len(mine) >= 2
    assert lstm["accuracy_mean"] == pytest.approx(sum(accuracies) / len(accuracies))
    assert lstm["accuracy_std"] > 0
    assert list(mine[0])[:4] == ["dataset", "model", "epochs", "seed"]
    settings = f"-S dataset=digits -S seed=2 -S train.threads={joblib.cpu_count()}"
    assert mine[1]["command"] == f"dvc exp run {settings}"
    page = studied.read("studies/results/tiny.html")
    assert page.startswith("<!doctype html>")
    assert all(row["command"] in page.replace("&#39;", "'") for row in mine)
    assert studied.path("studies/results/tiny.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_with_other_libraries_trains_nothing():
    here = versions()
    assert {"keras", "tensorflow", "numpy"} <= here.keys()
    for wanted, said in (
        (here | {"numpy": "0.1"}, f"the worker has numpy {here['numpy']}, the study's driver 0.1"),
        (here | {"no-such-library": "1"}, "the worker has no-such-library none"),
    ):
        with pytest.raises(StageError, match=said):
            run_alike(wanted, job=None)


def test_a_batch_of_too_few_images_is_refused_before_anything_is_trained(tiny_document):
    grid = [{"model": ["cnn"], "seed": [1], "train.batch_size": [128], "cnn.batch_norm": [True]}]
    study = Study.model_validate({"description": "a test", "evaluate": "test", "grid": grid})
    (trial,) = trials(study, tiny_document, cpus=1)
    for images in (127, 128, 130, 256):
        check_last_batch(trial, images)
    with pytest.raises(StageError, match="129 images in batches of 128 leave 1 for the last"):
        check_last_batch(trial, 129)


def test_all_cores_are_this_machines_and_no_clusters(monkeypatch):
    study = Study.model_validate({"description": "a test", "evaluate": "test", "grid": GRID})
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    check_cores(cores_of_a_trial(study, 999))
    with pytest.raises(StageError, match="--cpus 0 is for one machine"):
        cores_of_a_trial(study, 0)
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert cores_of_a_trial(study, 0) == joblib.cpu_count()
    with pytest.raises(StageError, match="asks for 999 cores"):
        check_cores(cores_of_a_trial(study, 999))


def test_a_trial_that_was_there_and_is_gone_is_missing_too(tiny_document, capsys):
    study = Study.model_validate({"description": "a test", "evaluate": "test", "grid": GRID})
    found = trials(study, tiny_document, cpus=1)[:1]
    (job,) = (make_trial_job(trial, study, prepare_all(found, study)) for trial in found)
    with pytest.raises(StageError, match="1 of 1 trials are missing"):
        report_missing([], [job])
    assert f"{job.digest}.json was there, and is gone" in capsys.readouterr().err


def test_what_a_measured_study_needs_is_copied_and_its_failure_is_told(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert {str(PARAMS_FILE), str(FLOORS), str(PUBLISHED)} <= set(NEEDED)
    with pytest.raises(StageError, match=r"the study failed: study\.yaml: grid"):
        timed_study({"description": "none", "evaluate": "test", "grid": []}, cpus=1)


def test_a_search_never_sees_the_test_set(tiny_document):
    facts = {"description": "a test", "grid": {"model": ["lstm"], "seed": [1]}}
    sizes = {}
    for evaluate in ("val", "test"):
        study = Study.model_validate(facts | {"evaluate": evaluate})
        (made,) = prepare_all(trials(study, tiny_document, 1), study).values()
        sizes[evaluate] = [len(array) for array in made.arrays]
        assert ("test" in made.manifest["splits"]) == (evaluate == "test")
    assert len(sizes["val"]) == 4
    assert sizes["test"] == [*sizes["val"], 360, 360]
