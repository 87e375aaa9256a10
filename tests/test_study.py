"""A study as a user runs it: on digits, with Ray, in a copy of the project."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import pytest
from conftest import ROOT, TINY, Project

from stages.common.cli import INTERRUPTED, StageError
from stages.common.files import write_json
from studies.engine import driver
from studies.engine.__main__ import RESUME
from studies.engine.cost import LONG, Cost, duration, training_seconds
from studies.engine.grid import Study, trials
from studies.engine.pool import has_ray
from studies.engine.trial import Job, run_trial

if not has_ray():
    pytest.skip("Ray is not installed: studies/requirements.txt", allow_module_level=True)

TWO = {"dataset": ["digits"], "model": ["cnn", "lstm"], "seed": [1]}
FOUR = [TWO | {"model": ["cnn", "lstm", "hybrid"]}, TWO | {"model": ["lstm"], "seed": [2]}]
TOO_DEEP = [4] * 9  # more convolution blocks than an image has room for


def write_study(project: Project, **changes) -> str:
    """Write `studies/tiny.yaml`, a study of very small models, and return its path."""
    study = {"description": "a test", "evaluate": "test", "grid": TWO} | changes
    path = "studies/tiny.yaml"
    project.path(path).write_text(json.dumps(study), encoding="utf-8")  # JSON is YAML
    return path


def rows(project: Project) -> list[dict[str, str]]:
    with project.path("studies/results/tiny.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def finished(project: Project) -> dict[Path, int]:
    """Return the files of finished trials and when each was written."""
    folder = project.path("studies/trials")  # files that are being written start with a dot
    return {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.json")}


def make_study(**changes) -> Study:
    facts = {"description": "a test", "evaluate": "test", "grid": TWO} | changes
    return Study.model_validate(facts)


# --- one study of two trials --------------------------------------------------------------


@pytest.fixture(scope="module")
def studied(tmp_path_factory, tiny_document, environment, ray_turn) -> Project:  # noqa: ARG001
    """A project with a finished study, in a folder with a space, run by a Python in another one."""
    folder = tmp_path_factory.mktemp("study") / "a study"
    made = Project(folder, tiny_document, environment)
    made.path("a venv").symlink_to(sys.prefix)
    python = made.path("a venv") / "bin" / Path(sys.executable).name
    study = write_study(made)
    made.printed = made.run(
        str(python), "-m", "studies.engine", study, "--cpus", "0", "--yes"
    ).stdout
    return made


def test_a_trial_gives_the_pipelines_figures_to_the_last_digit(studied, pipeline):
    tested = json.loads(pipeline.read("metrics/test.json"))
    assert [row["model"] for row in rows(studied)] == ["cnn", "lstm"]
    for row in rows(studied):
        model = row["model"]
        validated = json.loads(pipeline.read(f"metrics/{model}.json"))[model]["val"]
        timing = json.loads(pipeline.read(f"data/timing/{model}.json"))
        threads = timing["threads"]
        expected = {
            **{key: tested[model]["test"][key] for key in ("accuracy", "loss", "macro_f1")},
            "val_accuracy": validated["accuracy"],
            "val_loss": validated["loss"],
            "parameters": timing["parameters"],
            "threads": f"{threads['inter_op']}×{threads['intra_op']}/{threads['batch_parts']}",
        }
        assert {key: row[key] for key in expected} == {k: str(v) for k, v in expected.items()}


def test_results_are_rows_cells_a_table_and_a_page(studied):
    cnn, lstm = json.loads(studied.read("studies/results/tiny.json"))
    assert [cell["accuracy_mean"] for cell in (cnn, lstm)] == [
        float(row["accuracy"]) for row in rows(studied)
    ]
    assert f"| {100 * cnn['accuracy_mean']:.2f} | {100 * lstm['accuracy_mean']:.2f} |" in (
        studied.printed
    )
    commands = [row["command"] for row in rows(studied)]
    threads = f"-S train.threads={joblib.cpu_count()}"
    assert commands == [f"dvc exp run -S dataset=digits -S seed=1 {threads}"] * 2
    page = studied.read("studies/results/tiny.html")
    assert page.startswith("<!doctype html>")
    assert commands[0] in page
    assert studied.path("studies/results/tiny.png").read_bytes().startswith(b"\x89PNG")


def study_of(project: Project, monkeypatch, *arguments: str) -> None:
    """Run the study of a project in this process."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "argv", ["studies.engine", "studies/tiny.yaml", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    driver.main()


def test_results_are_written_again_without_training(studied, monkeypatch, capsys):
    before, kept = finished(studied), studied.read("studies/results/tiny.csv")
    studied.path("studies/results/tiny.csv").unlink()
    study_of(studied, monkeypatch, "--cpus", "0", "--results")
    assert "tiny: 2 trials, 2 of them done" in capsys.readouterr().out
    assert studied.read("studies/results/tiny.csv") == kept
    assert finished(studied) == before


def test_a_study_asks_before_it_trains_recorded_trials_again(studied, monkeypatch, capsys):
    before = finished(studied)
    studied.set({"train.batch_size": 64})
    try:
        with pytest.raises(StageError, match=r"recorded results of 2 of them .* pass --yes"):
            study_of(studied, monkeypatch, "--cpus", "0")
        study_of(studied, monkeypatch, "--cpus", "0", "--list")
    finally:
        studied.set({})
    assert "training 2 trials takes about" in capsys.readouterr().out
    assert finished(studied) == before


# --- cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "seconds", "asks"),
    [(0, LONG, False), (0, LONG + 1, True), (1, 5, True), (0, None, True)],
)
@pytest.mark.parametrize("answer", ["y", "n", "", "no terminal"])
def test_only_a_yes_starts_a_long_study(monkeypatch, capsys, recorded, seconds, asks, answer):
    stdin = io.StringIO(answer and f"{answer}\n")
    stdin.isatty = lambda: answer != "no terminal"
    monkeypatch.setattr(sys, "stdin", stdin)
    cost = Cost(trials=3, recorded=recorded, seconds=seconds)
    if not asks or answer == "y":
        cost.confirm()
    else:
        message = "pass --yes" if answer == "no terminal" else "nothing was started"
        with pytest.raises(StageError, match=message):
            cost.confirm()
    assert ("Start? [y/N]" in capsys.readouterr().out) == (asks and answer != "no terminal")


def test_the_estimate_follows_from_recorded_trials_of_the_same_model(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    for i, (model, speed) in enumerate([("cnn", 10), ("cnn", 1000), ("cnn", 2000), ("lstm", 500)]):
        trial = {"job": {"model": model}, "result": {"examples_per_second": speed}}
        write_json(tmp_path / f"{i}.json", trial)
    work = [("cnn", 20_000)] * 8 + [("lstm", 10_000)] * 2
    assert training_seconds(work, tmp_path, cpus=1) == (8 * 20 + 2 * 20) / 4
    assert training_seconds(work, tmp_path, cpus=2) == (8 * 20 + 2 * 20) / 2
    assert training_seconds(work[:1], tmp_path, cpus=1) == 20
    assert training_seconds([*work, ("hybrid", 1)], tmp_path, cpus=1) is None
    assert [duration(seconds) for seconds in (40, 700, 18_120)] == ["40 s", "12 min", "5 h 2 min"]


# --- checks before a study ----------------------------------------------------------------


def test_all_cores_means_those_of_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    driver.check_cores(driver.cores_per_trial(make_study(), 999))
    with pytest.raises(StageError, match="--cpus 0 is for one machine"):
        driver.cores_per_trial(make_study(), 0)
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert driver.cores_per_trial(make_study(), 0) == joblib.cpu_count()
    with pytest.raises(StageError, match="needs 999 cores, but this machine has"):
        driver.check_cores(driver.cores_per_trial(make_study(), 999))


def test_a_study_takes_its_defaults_from_the_last_commit(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    project.set({"train.batch_size": 64})
    assert driver.committed_params()["train"]["batch_size"] == 64, "without git: the file"
    project.commit("all")
    project.set({"train.batch_size": 32})
    assert driver.committed_params()["train"]["batch_size"] == 64


def test_a_search_never_sees_the_test_set(tiny_document):
    sizes = {}
    for evaluate in ("val", "test"):
        found = trials(make_study(evaluate=evaluate), tiny_document, 1)
        (arrays,) = driver.prepare(found, evaluate)[1].values()
        sizes[evaluate] = [len(array) for array in arrays]
    assert len(sizes["val"]) == 4
    assert sizes["test"] == [*sizes["val"], 360, 360]


def test_a_worker_with_other_libraries_trains_nothing():
    job = Job(params={}, model="cnn", num_classes=10, key="", libraries={"numpy": "0.1"})
    with pytest.raises(StageError, match=r"worker has {'keras': .*}, the driver {'numpy': '0.1'}"):
        run_trial(job)


# --- interruptions and failures -----------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory, tiny_document, environment, ray_turn) -> Project:  # noqa: ARG001
    """A project in which a study of four trials was killed and run again."""
    made = Project(tmp_path_factory.mktemp("killed") / "project", tiny_document, environment)
    command = [sys.executable, "-m", "studies.engine", write_study(made, grid=FOUR), "--yes"]
    process = subprocess.Popen(
        [*command, "--cpus", "0"], cwd=made.folder, env=environment, stdout=subprocess.DEVNULL
    )
    while not finished(made):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made.kept = finished(made)
    made.printed = made.run(*command, "--cpus", "0").stdout
    return made


@pytest.mark.extra
def test_a_killed_study_continues(killed):
    assert 1 <= len(killed.kept) < 4
    assert f"4 trials, {len(killed.kept)} of them done" in killed.printed
    after = finished(killed)
    assert {path: after[path] for path in killed.kept} == killed.kept, "not written again"
    assert len(rows(killed)) == len(after) == 4


@pytest.mark.extra
def test_a_larger_grid_runs_what_is_new_and_reports_a_failure(killed, tmp_path):
    killed = killed.copy_to(tmp_path / "copy")
    before = finished(killed)
    grown = [
        *FOUR, TWO | {"model": ["lstm"], "seed": [3]},
        TWO | {"model": ["cnn"], "cnn.filters": [TOO_DEEP]},
    ]  # fmt: skip
    study = write_study(killed, grid=grown)
    done = killed.module("studies.engine", study, "--cpus", "0", "--yes", status=1)
    assert "6 trials, 4 of them done" in done.stdout
    assert "[2/2]" in done.stdout
    missing, error = done.stderr.splitlines()[-2:]
    assert f"digits cnn epochs={TINY['epochs']} seed=1" in missing
    assert "convolution blocks" in missing
    assert "2 attempts" in missing
    log = killed.path(missing.split("; ")[-1].removesuffix(")"))
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert error == "error: 1 of 6 trials are missing; run the same command again"
    now = finished(killed)
    assert {path: now[path] for path in before} == before
    assert len(rows(killed)) == len(now) == 5


@pytest.mark.extra
@pytest.mark.usefixtures("ray_turn")
def test_ctrl_c_says_that_finished_trials_are_kept(project):
    study = write_study(project, base={"epochs": 1000})
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.engine", study, "--yes"],
        cwd=project.folder, env=project.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while "running" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert errors.splitlines()[-1:] == [RESUME]
    assert process.returncode == INTERRUPTED


def test_ctrl_c_while_libraries_load_ends_in_the_same_line(tmp_path, environment):
    (tmp_path / "joblib.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, "-m", "studies.engine", "studies/comparison.yaml"],
        cwd=ROOT, env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (INTERRUPTED, f"{RESUME}\n")
