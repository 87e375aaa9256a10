"""`tools.review`: what a reviewer reads about a branch, made from real branches."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Project
from review_project import branch, edit, work

from stages.common.cli import StageError
from stages.common.params import parse_params
from stages.reporting.targets import settings_digest
from tools.review import by_images, by_seeds, cell, review, stale_stages

__all__ = ["branch", "work"]
TESTED, LSTM = "metrics/test.json", "metrics/lstm.json"
CONFLICT = "<<<<<<< HEAD\n{}\n=======\n>>>>>>> theirs\n"


@pytest.fixture
def enter(monkeypatch) -> Callable[[Project], None]:
    """Return a function that makes a project the current folder of this process."""

    def enter(project: Project) -> None:
        monkeypatch.chdir(project.folder)
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)

    return enter


def rows_of(text: str) -> dict[str, str]:
    """Return the review's line on each model."""
    return {row.split(" ")[1]: row for row in re.findall(r"^\| \w+ \| [\d.]+ .*$", text, re.M)}


# --- whole reviews ------------------------------------------------------------------------


def replace(project: Project, name: str, content: bytes) -> None:
    project.path(name).unlink()  # DVC may have linked it to its cache
    project.path(name).write_bytes(content)


def test_a_change_that_dvc_lock_records(work, enter):
    work.set({"lstm.units": [24]})
    edit(work, LSTM, {"lstm.val.accuracy": 0.5})
    tested = json.loads(work.read(TESTED))
    edit(work, TESTED, {"lstm": tested["cnn"], "ensemble.test.accuracy": 0.25})
    history = work.path("plots/history/cnn.csv").read_bytes()
    replace(work, "plots/history/lstm.csv", history)
    replace(work, "data/models/lstm.keras", b"other weights")
    work.dvc("commit", "--force")
    work.commit("more units")
    enter(work)
    text = review("main")
    assert "| lstm.units | [8] | [24] |" in text
    assert "Stale" not in text
    rows = rows_of(text)
    assert list(rows) == ["lstm", "ensemble"]
    old, new = (100 * tested[name]["test"]["accuracy"] for name in ("lstm", "cnn"))
    sign = "▲ +" if new > old else "▼ −"
    assert f"| {old:.2f} → {new:.2f} % | {sign}{abs(new - old):.2f} |" in rows["lstm"]
    assert re.search(r"\| (not )?significant \(test images: p (=|&lt;) ", rows["lstm"])
    short, folded = text.split("<details>")[0], text.split("<details>")[-1]
    assert len(short.splitlines()) < 25
    figures = re.findall(r"^\| (\w+\.\w+\.\w+) ", folded, re.M)
    assert figures[0] == "lstm.test.accuracy"
    assert figures[-2:] == ["lstm.val.accuracy", "ensemble.test.accuracy"]
    curves = work.read("review/curves.svg")
    assert all(f">{name}: validation loss" in curves for name in ("cnn", "lstm", "hybrid"))
    assert not work.run("git", "status", "--short").stdout

    work.run("git", "checkout", "--quiet", "main")  # data/ still belongs to the branch
    assert "Nothing changed" in review("main")
    assert stale_stages() == []


def test_a_stale_lock_names_the_stages(branch, enter):
    branch.set({"lstm.units": [9]})
    branch.commit("forgot to reproduce")
    enter(branch)
    assert "**Stale: train_lstm, evaluate, report.**" in review("main")
    checked = branch.module("tools.review", "--check", status=1)
    assert checked.stderr.startswith("error: dvc.lock is stale: train_lstm, evaluate, report; ")


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("stages/models/cnn.py", ["train_cnn", "evaluate", "report"]),
        ("stages/reporting/page.py", ["report"]),
        ("metrics/cnn.json", ["train_cnn", "evaluate", "report"]),
        ("data/models/cnn.keras", []),
        ("data/prepared/manifest.json", []),
    ],
)
def test_code_and_figures_are_compared_with_the_lock_but_not_data(work, enter, name, stages):
    replace(work, name, work.path(name).read_bytes() + b"\n")
    enter(work)
    assert stale_stages() == stages


def test_a_lock_that_a_merge_mixed_up_is_stale(branch, enter):
    """It has one side's models and the other side's evaluation; or it lacks a stage."""
    lock = yaml.safe_load(branch.read("dvc.lock"))
    lock["stages"]["train_cnn"]["outs"][0]["md5"] = "0" * 32
    branch.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    enter(branch)
    assert stale_stages() == ["evaluate", "report"]
    del lock["stages"]["train_cnn"]
    branch.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    assert stale_stages() == ["train_cnn", "evaluate", "report"]


def test_many_parameters_fold_away(branch, enter):
    keys = ("dropout", "learning_rate", "weight_decay", "label_smoothing", "zoom")
    branch.set({f"{model}.{key}": 0.013 for key in keys for model in ("cnn", "lstm", "hybrid")})
    enter(branch)
    shown, folded = review("main").split("<details><summary>All changed parameters (15)")
    assert "cnn.zoom" in folded
    assert "cnn.zoom" not in shown


def test_a_change_of_the_readme_changes_nothing(branch, enter):
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    enter(branch)
    lines = review("main").strip().splitlines()
    assert lines[-1].startswith("Nothing changed:")
    assert len(lines) == 3


def write_study(project: Project, model: str, **changes) -> None:
    """Write a study with the settings and library versions of the run, and any number of seeds."""
    results = csv.DictReader(project.read("metrics/results.csv").splitlines())
    run = next(results)
    libraries = {key: run[key] for key in ("keras", "tensorflow", "numpy")}
    params = parse_params(project.document).model_dump()
    study = {"model": model, "n": 5, "accuracy_mean": 1.0, "accuracy_std": 0.001,
             "settings": settings_digest(model, params), "libraries": libraries,
             "results_version": int(run["results_version"])}  # fmt: skip
    path = project.path("studies/results/comparison.json")
    path.write_text(json.dumps([study | changes]), encoding="utf-8")


def test_a_run_is_compared_with_the_study_of_its_own_settings(branch, enter):
    """The branch asks for 9 epochs, but its figures come from 4."""
    write_study(branch, "lstm")
    branch.set({"epochs": 9})
    enter(branch)
    assert "**Unusually low:** lstm: " in review("main")
    assert "(100.00 ± 0.10 %, 5 seeds)" in review("main")
    for other in (
        {"settings": settings_digest("lstm", parse_params(yaml.safe_load(
            branch.read("params.yaml"))).model_dump())},  # those of the edited params.yaml
        {"libraries": {"keras": "2"}}, {"libraries": {"tensorflow": "mixed"}},
        {"results_version": 0}, {"n": 1}, {"accuracy_std": 0.4},
    ):  # fmt: skip
        write_study(branch, "lstm", **other)
        assert "Unusually" not in review("main")


def test_another_dataset_is_not_compared(branch, enter):
    branch.set({"dataset": "own|.npz"})
    edit(branch, TESTED, {"cnn.test.accuracy": 0.5, "lstm.test.accuracy": 0.25})
    enter(branch)
    text = review("main")
    assert "not comparable:** the dataset changed from digits to own\\|.npz" in text
    assert len(rows_of(text)) == 2
    assert not re.search("[▲▼]|significant [(]", text)


# --- one clear line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["params.yaml", "dvc.lock", TESTED, "metrics/cnn.json", "metrics/results.csv",
     "plots/history/cnn.csv", "plots/mistakes.csv"],
)  # fmt: skip
def test_conflict_markers_end_in_one_line_that_names_the_file(branch, enter, name):
    branch.path(name).write_text(CONFLICT.format(branch.read(name)), encoding="utf-8")
    enter(branch)
    with pytest.raises(StageError, match=re.escape(name)):
        review("main")


def test_conflict_markers_in_the_base_name_its_commit(branch, enter):
    branch.run("git", "checkout", "--quiet", "main")
    good = branch.read(TESTED)
    branch.path(TESTED).write_text(CONFLICT.format(good), encoding="utf-8")
    branch.commit("merged badly")
    branch.path(TESTED).write_text(good, encoding="utf-8")
    enter(branch)
    with pytest.raises(StageError, match=rf"^[0-9a-f]{{7}}: {TESTED} is not valid JSON"):
        review("main")


def test_mistakes_end_in_one_line_that_says_what_to_type(branch, enter):
    enter(branch)
    with pytest.raises(StageError, match=r"nowhere.*make review BASE=origin/main"):
        review("nowhere")
    text = branch.read("params.yaml").replace("epochs:", "epoch:", 1)
    branch.path("params.yaml").write_text(text, encoding="utf-8")
    done = branch.module("tools.review", "main", status=1)
    assert done.stderr.startswith("error: params.yaml: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_git_one_line_says_what_to_type(project, enter):
    enter(project)
    for command in (stale_stages, lambda: review("main")):
        with pytest.raises(StageError, match=r"not in a git repository.*`git clone`"):
            command()


# --- where the project is -----------------------------------------------------------------


def subfolder(pipeline: Project, folder: Path) -> Project:
    """Put the project into a subfolder of another repository."""
    outer, inner = pipeline.at(folder), pipeline.copy_to(folder / "a project")
    inner.run("rm", "-rf", ".git", "data")
    outer.commit("all")
    return inner


def worktree(pipeline: Project, folder: Path) -> Project:
    repository = pipeline.copy_to(folder / "repository")
    repository.run("git", "worktree", "add", "--quiet", str(folder / "tree"))
    return pipeline.at(folder / "tree")


def submodule(pipeline: Project, folder: Path) -> Project:
    outer = pipeline.at(folder)
    outer.folder.mkdir()
    outer.run("git", "init", "--quiet")
    outer.run("git", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
              str(pipeline.folder), "project")  # fmt: skip
    return pipeline.at(folder / "project")


@pytest.mark.parametrize("place", [subfolder, worktree, submodule])
def test_it_works_in(pipeline, tmp_path, enter, place):
    project = place(pipeline, tmp_path / "outer")
    enter(project)
    assert "Nothing changed" in review("HEAD")
    project.set({"cnn.dense": 9})
    edit(project, TESTED, {"cnn.test.accuracy": 0.125})
    text = review("HEAD")
    assert "| cnn.dense | 8 | 9 |" in text
    assert "**Stale: train_cnn, evaluate, report.**" in text
    assert "→ 12.50 %" in text


# --- significance -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "word"),
    [(0.0063, "significant"), (-0.0063, "significant"), (0.0061, "not significant")],
)
def test_the_spread_over_seeds_decides(difference, word):
    cell = {"n": 5, "accuracy_std": 0.00158}
    # t(0.975, 4) = 2.776, times sqrt(2) × 0.00158
    assert by_seeds(difference, cell, cell) == f"{word} (seeds: ±0.62 points, n = 5)"
    assert by_seeds(difference, cell, None) == ""


def test_mcnemar_counts_the_images_that_only_one_side_has_right():
    expected = "significant (test images: p = 0.031, +0 −6)"  # 2 × 0.5⁶
    assert by_images({"9"}, {"9", *"123456"}) == expected
    assert by_images({"1"}, {"1"}) == "not significant (test images: p = 1, +0 −0)"


def test_mistakes_of_the_same_images_are_paired(branch, enter):
    """The branch classifies exactly one more image correctly."""
    lines = branch.read("plots/mistakes.csv").splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if line.startswith("lstm,"))
    branch.path("plots/mistakes.csv").write_text("".join(lines[:last] + lines[last + 1 :]))
    edit(branch, TESTED, {"lstm.test.accuracy": 0.875})
    enter(branch)
    assert "(test images: p = 1, +1 −0)" in rows_of(review("main"))["lstm"]
    supports = branch.read("plots/per_class.csv").splitlines(keepends=True)
    branch.path("plots/per_class.csv").write_text("".join(supports[:11]))  # the LSTM has none
    assert "not comparable:** the test images are not the same" in review("main")


def test_a_run_uses_the_seeds_if_both_sides_have_a_study(work, enter):
    edit(work, TESTED, {"lstm.test.accuracy": 0.9, "ensemble.test.accuracy": 0.9})
    write_study(work, "lstm", n=3, accuracy_std=0.1)
    enter(work)
    rows = rows_of(review("main"))
    assert "(seeds: ±60.85 points, n = 3)" in rows["lstm"]
    assert "(test images: " in rows["ensemble"]


def test_values_stay_inside_their_cell():
    assert cell("a|b\n<script>`&@all") == "a\\|b &lt;script&gt;'&amp;@\u200ball"
