"""`make review`: what a reviewer reads about a branch, made from real branches."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Project, set_keys
from review_project import branch, recorded, work

from stages.params import parse_params
from stages.review import by_mcnemar, by_study, cell, over_seeds, recorded_trials

__all__ = ["branch", "recorded", "work"]
UNITS = {"lstm.units": [24]}
TRIALS = [0.5, 0.501, 0.499, 0.502, 0.498]  # accuracies of five seeds


def review(project: Project, base: str = "main") -> str:
    project.stage("review", base)
    return project.read("review/review.md")


def change(project: Project, changes: dict, message: str) -> None:
    """Change parameters as a branch's author does: reproduce, then commit."""
    project.set(changes)
    project.dvc("repro")
    project.commit(message)


def rows_of(text: str) -> dict[str, str]:
    """Return the review's line on each model."""
    return {row.split(" ")[1]: row for row in re.findall(r"^\| \w+ \| [\d.]+ .*$", text, re.M)}


def test_other_units_for_the_lstm_reproduced(work):
    before = json.loads(work.read("metrics/evaluation.json"))
    change(work, UNITS, "more units")
    after = json.loads(work.read("metrics/evaluation.json"))
    text = review(work)
    assert "| lstm.units | [8] | [24] |" in text
    rows = rows_of(text)
    assert {"lstm"} <= set(rows) <= {"lstm", "ensemble"}  # the others were not retrained
    old, new = (100 * figures["lstm"]["accuracy"] for figures in (before, after))
    assert f"| {old:.2f} → {new:.2f} % | {'▲' if new > old else '▼'} {new - old:+.2f} |" in text
    assert re.search(r"(beyond|within) chance on these images \(McNemar p = ", rows["lstm"])
    assert "Stale" not in text
    assert "Below" not in text
    assert "metrics/train/lstm.json" in text.split("<details>")[-1]
    curves = work.read("review/curves.svg")
    assert curves.lstrip().startswith("<?xml")
    assert all(f"<!-- {name} -->" in curves for name in ("cnn", "lstm", "hybrid"))
    assert len(text) < 60_000
    assert len(text.split("<details>")[0].splitlines()) < 25  # the rest folds away
    assert not work.run("git", "status", "--short").stdout

    for units, accuracies in ([8], [0.5, 0.4, 0.6]), ([24], [0.0, 1.0, 0.5]):
        settings = set_keys(work.document, {"lstm.units": units})
        for seed, accuracy in enumerate(accuracies):  # which differ more than the branch
            write_trial(work.folder, "lstm", set_keys(settings, {"seed": seed}), accuracy)
    said = rows_of(review(work))
    assert "within the seeds' spread, ±219.39% (study, n = 3)" in said["lstm"]
    assert "McNemar" in said.get("ensemble", "McNemar"), "of which there are no trials"


def test_a_stale_lock_names_the_stages(branch):
    branch.set({"lstm.units": [9]})
    branch.commit("forgot to reproduce")
    text = review(branch)
    assert re.search(r"\*\*Stale: train_lstm, evaluate, report\.\*\*", text), text
    assert "train_cnn" not in text
    checked = branch.stage("review", "--check", status=1)
    assert checked.stderr.startswith("error: dvc.lock is stale: train_lstm")


def test_many_parameters_fold_away(branch):
    keys = ("dropout", "learning_rate", "weight_decay", "label_smoothing", "zoom")
    branch.set({f"{model}.{key}": 0.013 for key in keys for model in ("cnn", "lstm", "hybrid")})
    branch.commit("another recipe, not reproduced")
    shown, folded = review(branch).split("<details><summary>All changed parameters (15)")
    assert "cnn.zoom" in folded
    assert "cnn.zoom" not in shown


def test_only_the_readme(branch):
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    lines = review(branch).strip().splitlines()
    assert lines[-1].startswith("Nothing changed:")
    assert len(lines) == 3
    assert "records" in branch.stage("review", "--check").stdout


def test_a_missed_floor(work):
    """Main reaches its floor; the branch has the LSTM learn next to nothing."""
    reached = json.loads(work.read("metrics/evaluation.json"))["lstm"]["accuracy"]
    work.run("git", "checkout", "--quiet", "main")
    floor = {
        "dataset": "digits",
        "epochs": work.document["epochs"],
        "model": "lstm",
        "accuracy": reached,
    }
    work.path("studies/floors.yaml").write_text(yaml.safe_dump([floor]), encoding="utf-8")
    change(work, {}, "a floor")
    assert "BELOW THE FLOOR" not in work.stage("results").stdout
    work.run("git", "checkout", "--quiet", "-b", "slow")
    change(work, {"lstm.learning_rate": 1e-9}, "slower")
    missed = json.loads(work.read("metrics/evaluation.json"))["lstm"]["accuracy"]
    assert missed < reached, "the branch should be worse"
    text = review(work)
    assert f"**Below the floor:** lstm: {missed:.2%}, floor {reached:.2%}." in text
    assert "BELOW THE FLOOR  lstm" in work.stage("results").stdout


def test_another_dataset_is_not_compared(work, make_npz):
    change(work, {"dataset": str(make_npz(side=(16, 16)))}, "own pictures")
    text = review(work)
    assert f"not comparable:** the dataset changed from digits to {work.folder.parent}" in text
    assert len(rows_of(text)) == 4
    assert "▲" not in text
    assert "▼" not in text
    assert "chance" not in text.split("<details>")[0].replace("more than chance?", "")


# --- chance -------------------------------------------------------------------------------


def write_trial(folder: Path, model: str, params: dict, accuracy: float | None) -> Path:
    """Write a trial as a study keeps it; without an accuracy it is one of a search."""
    result = {"val_accuracy": 0.5} | ({} if accuracy is None else {"accuracy": accuracy})
    trial = {"job": {"model": model, "params": parse_params(params).model_dump()}, "result": result}
    trials = folder / "studies/trials"
    trials.mkdir(parents=True, exist_ok=True)
    path = trials / f"{len(list(trials.iterdir()))}.json"
    path.write_text(json.dumps(trial), encoding="utf-8")
    return path


@pytest.fixture
def with_trials(tmp_path, monkeypatch, tiny_document):
    """Return a function that records an LSTM's trials, a seed each, with changed settings."""
    monkeypatch.chdir(tmp_path)

    def write(accuracies: list[float | None], changes: dict) -> dict:
        params = set_keys(tiny_document, changes)
        for seed, accuracy in enumerate(accuracies):
            write_trial(tmp_path, "lstm", set_keys(params, {"seed": seed}), accuracy)
        return params

    return write


@pytest.mark.parametrize(
    ("difference", "said"), [(0.0063, "beyond"), (-0.0063, "beyond"), (0.0061, "within")]
)
def test_a_study_gives_the_spread(with_trials, difference, said):
    there = with_trials(TRIALS, {"epochs": 1})
    here = with_trials(TRIALS, {"epochs": 2, "train.threads": 1, "cnn.dropout": 0.1})
    with_trials([0.9, 0.8], {"epochs": 2, "lstm.units": [9]})
    # t(0.975, 4) = 2.776; times sqrt(2) × 0.00158
    expected = f"{said} the seeds' spread, ±0.62% (study, n = 5)"
    assert by_study("lstm", difference, there, here, recorded_trials()) == expected
    assert by_study("cnn", difference, there, here, recorded_trials()) == ""
    assert (
        by_study("lstm", difference, there, set_keys(here, {"epochs": 4}), recorded_trials()) == ""
    )


def test_trials_of_other_settings_and_searches_do_not_count(with_trials):
    params = with_trials([0.5, 0.7], {"epochs": 3})
    for changes in ({"lstm.dropout": 0.3}, {"train.batch_size": 7}, {"prepare.split_seed": 9}):
        with_trials([0.1, 0.2, 0.3], {"epochs": 3} | changes)
    with_trials([None] * 4, {"epochs": 3})
    assert over_seeds("lstm", params, recorded_trials()) == {0: 0.5, 1: 0.7}
    assert over_seeds("lstm", {"epochs": 3, "of": "another day"}, recorded_trials()) == {}


def test_trials_that_a_kill_left_half_written_do_not_count(with_trials, tmp_path):
    params = with_trials([0.5, 0.7], {})
    half = tmp_path / "studies/trials/.0-abcdefgh.json"  # as `stages.files.replacing` names it
    half.write_text('{"job": {"model', encoding="utf-8")
    assert over_seeds("lstm", params, recorded_trials()) == {0: 0.5, 1: 0.7}


def test_mcnemar_counts_the_discordant_images():
    def rows(guesses):
        return [{"actual": "1", "predicted": guess} for guess in guesses]

    assert "p = 0.031, +0 −6" in by_mcnemar(rows("111111"), rows("222222"))  # 2 × 0.5⁶
    assert by_mcnemar(rows("12"), rows("12")).startswith("within")


def test_values_cannot_break_out_of_a_cell():
    assert cell("a|b\n<script>`@all") == "a\\|b &lt;script&gt;'@\u200ball"


def test_parameters_that_are_wrong_end_in_a_line(branch):
    text = branch.read("params.yaml").replace("epochs:", "epoch:", 1)
    branch.path("params.yaml").write_text(text, encoding="utf-8")
    done = branch.run(sys.executable, "-m", "stages.review", "main", status=1)
    assert done.stderr.startswith("error: params.yaml: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_base_ends_in_a_line(branch):
    done = branch.run(sys.executable, "-m", "stages.review", "nowhere", status=1)
    assert done.stderr.startswith("error: git merge-base nowhere")
    assert len(done.stderr.splitlines()) == 1
