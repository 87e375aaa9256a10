"""`make review`: what a reviewer reads about a branch, made from real branches."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import yaml
from conftest import Project
from review_project import branch, recorded, work

from stages.review import by_mcnemar, by_study, cell, study_cell

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

    study = work.path("studies/results/epochs.json")  # seeds that differ more than the branch
    study.parent.mkdir(exist_ok=True)
    cells = cells_of({work.document["epochs"]: [0.0, 1.0, 0.5]})
    study.write_text(json.dumps(cells), encoding="utf-8")
    said = rows_of(review(work))
    assert "within the seeds' spread, ±304.24% (study, n = 3)" in said["lstm"]
    assert "McNemar" in said.get("ensemble", "McNemar"), "of which the study has no cell"


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


def cells_of(trials: dict[int, list[float]], model: str = "lstm") -> list[dict]:
    """Return the cells that a study makes of its trials' accuracies, by number of epochs."""
    return [
        {"dataset": "digits", "model": model, "epochs": epochs, "n": len(accuracies),
         "accuracy_mean": float(np.mean(accuracies)),
         "accuracy_std": float(np.std(accuracies, ddof=1)), "train_seconds_mean": 1.0}
        for epochs, accuracies in trials.items()
    ]  # fmt: skip


@pytest.fixture
def write_study(tmp_path, monkeypatch):
    """Return a function that writes a study's cells where the review looks for them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies/results").mkdir(parents=True)

    def write(*cells: dict, name: str = "epochs") -> None:
        path = tmp_path / f"studies/results/{name}.json"
        path.write_text(json.dumps(cells), encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("difference", "said"), [(0.0063, "beyond"), (-0.0063, "beyond"), (0.0061, "within")]
)
def test_a_study_gives_the_spread(write_study, difference, said):
    write_study(*cells_of({1: TRIALS, 2: TRIALS, 3: [0.9, 0.8]}))
    there, here = {"dataset": "digits", "epochs": 1}, {"dataset": "digits", "epochs": 2}
    # t(0.975, 4) = 2.776; times sqrt(2) × 0.00158
    expected = f"{said} the seeds' spread, ±0.62% (study, n = 5)"
    assert by_study("lstm", difference, there, here) == expected
    assert by_study("cnn", difference, there, here) == ""
    assert by_study("lstm", difference, there, here | {"epochs": 4}) == ""


def test_only_cells_of_our_recipe_with_several_seeds_count(write_study):
    (two,), (three,) = cells_of({3: [0.5, 0.7]}), cells_of({3: [0.5, 0.7, 0.6]})
    one = two | {"n": 1, "accuracy_std": None}
    search = {key: value for key, value in three.items() if not key.startswith("accuracy")}
    published = three | {"recipe": {"train.optimizer": "rmsprop"}}
    write_study(one, search, published)
    assert study_cell("digits", "lstm", 3) is None
    write_study(two, three | {"recipe": {}}, two, name="another")
    assert study_cell("digits", "lstm", 3)["n"] == 3


def test_results_that_a_kill_left_half_written_do_not_count(write_study, tmp_path):
    (cell_of_two,) = cells_of({3: [0.5, 0.7]})
    write_study(cell_of_two | {"recipe": {}})
    half = (
        tmp_path / "studies/results/.another-abcdefgh.json"
    )  # as `stages.files.replacing` names it
    half.write_text('[{"n": 9', encoding="utf-8")
    assert study_cell("digits", "lstm", 3)["n"] == 2


def test_mcnemar_counts_the_discordant_images():
    def rows(guesses):
        return [{"actual": "1", "predicted": guess} for guess in guesses]

    assert "p = 0.031, +0 −6" in by_mcnemar(rows("111111"), rows("222222"))  # 2 × 0.5⁶
    assert by_mcnemar(rows("12"), rows("12")).startswith("within")


def test_values_cannot_break_out_of_a_cell():
    assert cell("a|b\n<script>`@all") == "a\\|b &lt;script&gt;'@\u200ball"


def test_an_unknown_base_ends_in_a_line(branch):
    done = branch.run(sys.executable, "-m", "stages.review", "nowhere", status=1)
    assert done.stderr.startswith("error: git merge-base nowhere")
    assert len(done.stderr.splitlines()) == 1
