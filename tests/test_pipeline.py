"""The pipeline through the `dvc` command, in a copy of the project, on digits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection

import numpy as np
import pytest
from conftest import ROOT, TINY, Project, names, tiny_arrays

from stages.params import MODELS

TRAINING = tuple(f"train_{name}" for name in MODELS)
STAGES = ("prepare", *TRAINING, "evaluate", "report")


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, not those that it skipped or took from the run cache."""
    return re.findall(r"Running stage '(\w+)'", output)


def author(project: Project) -> list[str]:
    """Return what the Makefile puts before `dvc exp run` in this folder."""
    done = project.run("make", "-s", "--eval=show: ; @echo $(AUTHOR)", "show")
    return done.stdout.split()


def test_repro_runs_every_stage_and_leaves_what_it_declares(pipeline):
    order = ran(pipeline.first_output)
    assert sorted(order) == sorted(STAGES)  # DVC orders the trainings as it likes
    assert (order[0], order[-2:]) == ("prepare", ["evaluate", "report"])
    assert pipeline.run("git", "status", "--short").stdout == ""
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    for name in (*MODELS, "ensemble"):
        assert {"accuracy", "loss", "macro_f1", "errors"} <= set(evaluation[name])
    for name in MODELS:
        train = json.loads(pipeline.read(f"metrics/train/{name}.json"))
        assert train["epochs"] == TINY["epochs"]
        assert set(train["train"]) == set(train["val"]) == {"accuracy", "loss"}
        timing = json.loads(pipeline.read(f"metrics/timing/{name}.json"))
        assert {"train_seconds", "seconds_per_epoch", "examples_per_second", "peak_memory_bytes",
                "threads", "versions", "processor"} <= set(timing)  # fmt: skip
        rows = pipeline.read(f"plots/history/{name}.csv").splitlines()
        assert rows[0] == "epoch,accuracy,val_accuracy,loss,val_loss,learning_rate"
        assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
        assert pipeline.read(f"plots/confusion/{name}.csv").startswith("actual,predicted\n")


def test_a_second_repro_has_nothing_to_do(pipeline):
    output = pipeline.dvc("repro")
    assert ran(output) == []
    assert "Data and pipelines are up to date." in output
    assert pipeline.run("git", "status", "--short").stdout == ""


@pytest.mark.parametrize("model", MODELS)
def test_a_models_parameter_reruns_that_model_alone(clone, model):
    clone.set({f"{model}.dense": 9})
    would_run = ran(clone.dvc("repro", "--dry"))  # without knowing that the model will differ
    assert would_run[0] == f"train_{model}"
    assert set(would_run[1:]) <= {"evaluate", "report"}


def test_an_experiment_without_an_identity_and_back_again_from_the_run_cache(clone):
    prefix = author(clone)
    assert prefix[0] == "env"
    assert len(prefix) == 5, "name and e-mail of author and committer"
    done = clone.run(*prefix, "dvc", "exp", "run", "-S", "lstm.units=[16]")
    assert ran(done.stdout) == ["train_lstm", "evaluate", "report"]
    assert "16" in clone.dvc("params", "diff")
    assert "lstm" in clone.dvc("metrics", "diff")
    assert clone.run("git", "config", "--list", "--local").stdout.find("user.") == -1
    clone.set({})
    back = clone.dvc("repro")
    assert ran(back) == []
    assert "is cached - skipping run" in back
    assert clone.run("git", "diff", "--stat", "HEAD", "--", "metrics", "dvc.lock").stdout == ""


def test_the_makefile_lends_no_identity_where_there_is_one(clone):
    clone.run("git", "config", "user.name", "a")
    clone.run("git", "config", "user.email", "a@localhost")
    assert author(clone) == []


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD~0"]])
def test_plots_hold_every_model(clone, command):
    output = clone.dvc("plots", *command, "--out", "page")
    assert "error" not in output.lower()
    page = clone.read("page/index.html")
    for title in ("Training accuracy", "Validation accuracy", "Training loss", "Validation loss"):
        assert title in page
    for name in MODELS:
        assert f"{name}.csv" in page
        assert f"Confusion, {name}" in page


# --- bad input ----------------------------------------------------------------------------


def fails_clearly(project: Project, stages: Collection[str] = ("prepare",)) -> str:
    """Run `dvc repro`; return its one line, of one of these stages. Nothing may be left of it."""
    lock = project.read("dvc.lock")
    done = project.run("dvc", "repro", status=None)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    failed = re.search(r"failed to reproduce '(\w+)'", done.stderr)
    assert failed, done.stderr
    assert failed[1] in stages
    assert not project.path(f"data/models/{failed[1].removeprefix('train_')}.keras").exists()
    assert project.read("dvc.lock") == lock
    return lines[0]


A = tiny_arrays()
BAD_FILES = [
    ({"y_train": None}, "has no array 'y_train'"),
    ({"y_train": A["y_train"] - 1}, "y_train goes from -1"),
    ({"y_train": np.append(A["y_train"], 0)}, "60 images, y_train 61 labels"),
    ({"x_test": A["x_test"][:, :-1]}, "the images differ in size"),
    ({"x_train": np.array([np.zeros((2, 2)), None], object)}, "holds Python objects"),
    ({"y_train": np.r_[2, np.arange(59) % 2]}, "class '2' has 1 of 60"),
]


@pytest.mark.parametrize(("changes", "said"), BAD_FILES, ids=[said for _, said in BAD_FILES])
def test_bad_arrays_end_in_one_line(clone, make_npz, changes, said):
    before = names(clone.path("data"))
    clone.set({"dataset": str(make_npz(changes))})
    assert said in fails_clearly(clone)
    assert set(names(clone.path("data"))) <= set(before)


@pytest.mark.parametrize(
    ("changes", "stages", "said"),
    [
        # DVC runs the three training stages in an order that follows Python's hash seed
        ({"epochs": 0}, TRAINING, "epochs is 0; it should be greater than or equal to 1"),
        ({"dataset": "minst"}, ["prepare"], "dataset is 'minst'; it should be mnist, fashion_"),
        ({"cnn.filters": [4] * 5}, ["train_cnn"], "cnn.filters has 5 convolution blocks"),
    ],
)
def test_bad_parameters_end_in_one_line(clone, changes, stages, said):
    clone.set(changes)
    assert said in fails_clearly(clone, stages)


def test_no_network_and_no_file_end_in_one_line(clone):
    clone.set({"dataset": "mnist"})
    line = fails_clearly(clone)
    assert "cannot download" in line
    assert "dataset=digits" in line


@pytest.mark.parametrize("kind", ["truncated", "wrong content"])
def test_a_bad_cached_file_ends_in_one_line_and_stays(clone, make_npz, tmp_path, kind):
    cached = tmp_path / "keras/datasets/mnist.npz"
    cached.parent.mkdir(parents=True)
    content = make_npz().read_bytes()
    cached.write_bytes(content if kind == "wrong content" else content[:300])
    clone.environment = clone.environment | {"KERAS_HOME": str(tmp_path / "keras")}
    clone.set({"dataset": "mnist"})
    assert str(cached) in fails_clearly(clone)
    assert names(cached.parent) == ["mnist.npz"]


def test_a_folder_that_cannot_be_written_ends_in_one_line(project):
    """`data` is a file: nobody can write into it, root included, whom permissions do not stop."""
    project.path("data").write_text("in the way")
    done = project.stage("prepare", status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "data" in done.stderr
    assert project.read("data") == "in the way"


def test_a_read_only_folder_ends_in_one_line(clone):
    """Root is held to permissions too, by giving up the capability to override them."""
    as_anyone = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root ignores permissions, and there is no setpriv to stop it")
        as_anyone = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    clone.set({"prepare.split_seed": 7})
    data = clone.path("data")
    shutil.rmtree(data)
    data.mkdir()
    data.chmod(0o555)
    lock = clone.read("dvc.lock")
    try:
        done = clone.run(*as_anyone, "dvc", "repro", "prepare", status=None)
    finally:
        data.chmod(0o755)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0
    assert len(lines) == 1
    assert lines[0].startswith("error: data/")
    assert lines[0].endswith("Permission denied")
    assert names(data) == []
    assert clone.read("dvc.lock") == lock


def test_the_work_tree_is_not_written_by_any_of_this(pipeline):
    assert not pipeline.folder.is_relative_to(ROOT)
    top = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"],
        cwd=pipeline.folder, env=pipeline.environment, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert top == str(pipeline.folder.resolve())
