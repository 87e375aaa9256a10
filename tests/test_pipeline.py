"""The pipeline through the `dvc` command, in a copy of the project, on digits."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Collection

import pytest
from conftest import IDENTITY, ROOT, TINY, Project, names, tiny_arrays

from stages.common.params import ENSEMBLE, model_names

TRAINING = tuple(f"train_{name}" for name in model_names())


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, without those that it skipped or restored from its cache."""
    return re.findall(r"Running stage '(\w+)'", output)


def test_repro_runs_every_stage_and_writes_sane_results(pipeline):
    first, *training, evaluate, report = ran(pipeline.first_output)
    assert (first, evaluate, report) == ("prepare", "evaluate", "report")
    assert set(training) == set(TRAINING)
    assert pipeline.run("git", "status", "--short").stdout == ""
    tested = json.loads(pipeline.read("metrics/test.json"))
    assert set(tested) == {*model_names(), ENSEMBLE}
    for figures in (row["test"] for row in tested.values()):
        assert (figures["accuracy"] * 360) % 1 == pytest.approx(0, abs=1e-6)
        assert 0 < figures["macro_f1"] < 1
        assert 0 < figures["loss"] < 3
    for name in model_names():
        train = json.loads(pipeline.read(f"metrics/{name}.json"))[name]
        with pipeline.path(f"plots/history/{name}.csv").open(encoding="utf-8") as file:
            *_, last = rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == list(range(1, TINY["epochs"] + 1))
        assert train["val"]["accuracy"] == pytest.approx(float(last["val_accuracy"]))
        assert train["val"]["loss"] == pytest.approx(float(last["val_loss"]), rel=1e-3)
        timing = json.loads(pipeline.read(f"data/timing/{name}.json"))
        assert timing["epochs"] == TINY["epochs"]
        assert 0 < timing["seconds_per_epoch"] <= timing["train_seconds"]
        assert timing["peak_memory_bytes"] > 1e8


def test_a_second_repro_has_nothing_to_do(pipeline):
    output = pipeline.dvc("repro")
    assert ran(output) == []
    assert "Data and pipelines are up to date." in output
    assert pipeline.run("git", "status", "--short").stdout == ""


@pytest.mark.extra
def test_the_run_cache_restores_everything(clone):
    """Without dvc.lock and data, DVC recognizes each stage by its inputs.

    `report` runs: its table is an uncached output, which keeps it out of the run cache.
    """
    clone.path("dvc.lock").unlink()
    for name in ("models", "predictions", "prepared", "timing"):
        shutil.rmtree(clone.path(f"data/{name}"))
    output = clone.dvc("repro")
    assert ran(output) == ["report"]
    assert output.count("is cached - skipping run") == 5
    assert clone.run("git", "diff", "--stat", "HEAD", "--", "metrics", "plots").stdout == ""
    assert "up to date" in clone.dvc("status", "dvc.yaml")


@pytest.mark.extra
def test_an_experiment_changes_comparable_figures_only(clone):
    """`dvc metrics diff` has at most 32 rows, nested by model, and no seconds."""
    done = clone.run("dvc", "exp", "run", "-S", "lstm.units=16", **IDENTITY)
    assert ran(done.stdout) == ["train_lstm", "evaluate", "report"]
    changed = json.loads(clone.dvc("metrics", "diff", "--all", "--json", "HEAD"))
    keys = [key for figures in changed.values() for key in figures]
    assert len(keys) == len(set(keys)) <= 32
    for model in (*model_names(), ENSEMBLE):
        own = [key for key in keys if key.startswith(f"{model}.")]
        assert 0 < len(own) <= 8
    allowed = ("accuracy", "balanced_accuracy", "loss", "macro_f1", "calibration_error",
               "robustness")  # fmt: skip
    assert {key.split(".")[2] for key in keys} == set(allowed)


def test_the_tables_of_a_run_are_small(pipeline):
    files = [*pipeline.path("plots").rglob("*.csv"), pipeline.path("metrics/results.csv")]
    assert sum(path.stat().st_size for path in files) <= 30_000
    committed = [*(ROOT / "plots").rglob("*.csv"), ROOT / "metrics/results.csv"]
    assert sum(path.stat().st_size for path in committed) <= 30_000
    committed = pipeline.run("git", "ls-files", "plots", "metrics").stdout.split()
    assert not [name for name in committed if not name.endswith((".csv", ".json"))]


# --- bad input ----------------------------------------------------------------------------


def fails_clearly(project: Project, *stages: str) -> str:
    """Run `dvc repro`. Return the one line of the stage that failed, one of `stages`."""
    lock = project.read("dvc.lock")
    done = project.run("dvc", "repro", status=None)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"failed to reproduce '(\w+)'", done.stderr)[1] in stages
    assert project.read("dvc.lock") == lock
    return lines[0]


def test_bad_arrays_end_in_one_line_and_leave_nothing(clone, make_npz):
    before = names(clone.path("data"))
    labels = tiny_arrays()["y_train"] + 0.5
    clone.set({"dataset": str(make_npz({"y_train": labels}))})
    assert "y_train: label 0 (from 0) is" in fails_clearly(clone, "prepare")
    assert set(names(clone.path("data"))) <= set(before)


@pytest.mark.parametrize(
    ("changes", "stages", "message"),
    [
        # DVC runs the three training stages in any order
        ({"epochs": 0}, TRAINING, "epochs is 0; it should be greater than or equal to 1"),
        ({"cnn.filters": [4] * 5}, ["train_cnn"], "cnn.filters asks for 5 convolution blocks"),
        ({"dataset": "mnist"}, ["prepare"], "cannot download"),  # without a network
    ],
)
def test_bad_parameters_end_in_one_line(
    clone, changes: dict, stages: Collection[str], message: str
):
    clone.set(changes)
    line = fails_clearly(clone, *stages)
    assert message in line
    assert ("dataset=digits" in line) == ("dataset" in changes)


def test_a_file_in_the_place_of_a_folder_ends_in_one_line(project):
    shutil.rmtree(project.path("data"))
    project.path("data").write_text("in the way")
    done = project.stage("prepare", status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "data" in done.stderr
    assert project.read("data") == "in the way"
