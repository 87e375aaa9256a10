"""`tools.review`: what a reviewer reads about a branch, made from real branches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Project, set_keys
from review_project import branch, edit, work

from stages.common.cli import StageError
from stages.common.params import parse_params
from tools.review import (
    accuracies_by_seed,
    by_images,
    by_seeds,
    cell,
    recorded_trials,
    review,
    stale_stages,
)  # fmt: skip

__all__ = ["branch", "work"]
EVALUATION = "metrics/evaluation.json"
LIBRARIES = {"keras": "3", "numpy": "2", "tensorflow": "2"}
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
    edit(work, "metrics/train/lstm.json", {"parameters": 5378, "val.accuracy": 0.5})
    tested = json.loads(work.read(EVALUATION))
    edit(work, EVALUATION, {"lstm": tested["cnn"], "ensemble.accuracy": 0.25})
    for kind in ("confusion", "history"):
        replace(work, f"plots/{kind}/lstm.csv", work.path(f"plots/{kind}/cnn.csv").read_bytes())
    replace(work, "data/models/lstm.keras", b"other weights")
    work.dvc("commit", "--force")
    work.commit("more units")
    enter(work)
    text = review("main")
    assert "| lstm.units | [8] | [24] |" in text
    assert "Stale" not in text
    assert "Below" not in text
    rows = rows_of(text)
    assert list(rows) == ["lstm", "ensemble"]
    old, new = (100 * tested[name]["accuracy"] for name in ("lstm", "cnn"))
    sign = "▲ +" if new > old else "▼ −"
    assert f"| {old:.2f} → {new:.2f} % | {sign}{abs(new - old):.2f} |" in rows["lstm"]
    assert re.search(r"\| (not )?significant \(test images: p (=|&lt;) ", rows["lstm"])
    short, folded = text.split("<details>")[0], text.split("<details>")[-1]
    assert len(short.splitlines()) < 25
    figures = re.findall(r"^\| (metrics/\S+): (\S+) ", folded, re.M)
    assert figures[0] == ("metrics/evaluation.json", "lstm.accuracy")
    assert figures[-3:] == [
        ("metrics/train/lstm.json", "parameters"), ("metrics/train/lstm.json", "val.accuracy"),
        ("metrics/evaluation.json", "ensemble.accuracy"),
    ]  # fmt: skip
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
        ("metrics/train/cnn.json", ["train_cnn", "evaluate", "report"]),
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


def test_a_target_applies_to_the_epochs_that_were_run(branch, enter):
    """The branch asks for 9 epochs, but its figures come from 4."""
    target = {"dataset": "digits", "model": "lstm", "accuracy": 1.0}
    branch.set({"epochs": 9})
    enter(branch)
    for epochs, below in ((9, False), (4, True)):
        entries = yaml.safe_dump([target | {"epochs": epochs}])
        branch.path("studies/targets.yaml").write_text(entries, encoding="utf-8")
        text = review("main")
        assert ("**Below target:** lstm: test accuracy" in text) == below


def test_another_dataset_is_not_compared(branch, enter):
    branch.set({"dataset": "own|.npz"})
    edit(branch, EVALUATION, {"cnn.accuracy": 0.5, "lstm.accuracy": 0.25})
    enter(branch)
    text = review("main")
    assert "not comparable:** the dataset changed from digits to own\\|.npz" in text
    assert len(rows_of(text)) == 2
    assert not re.search("[▲▼]|significant [(]", text)


# --- one clear line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["params.yaml", "dvc.lock", EVALUATION, "metrics/train/cnn.json", "metrics/timing/lstm.json",
     "plots/history/cnn.csv", "plots/confusion/lstm.csv"],
)  # fmt: skip
def test_conflict_markers_end_in_one_line_that_names_the_file(branch, enter, name):
    branch.path(name).write_text(CONFLICT.format(branch.read(name)), encoding="utf-8")
    enter(branch)
    with pytest.raises(StageError, match=re.escape(name)):
        review("main")


def test_conflict_markers_in_the_base_name_its_commit(branch, enter):
    branch.run("git", "checkout", "--quiet", "main")
    good = branch.read(EVALUATION)
    branch.path(EVALUATION).write_text(CONFLICT.format(good), encoding="utf-8")
    branch.commit("merged badly")
    branch.path(EVALUATION).write_text(good, encoding="utf-8")
    enter(branch)
    with pytest.raises(StageError, match=rf"^[0-9a-f]{{7}}: {EVALUATION} is not valid JSON"):
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
    edit(project, EVALUATION, {"cnn.accuracy": 0.125})
    text = review("HEAD")
    assert "| cnn.dense | 8 | 9 |" in text
    assert "**Stale: train_cnn, evaluate, report.**" in text
    assert "→ 12.50 %" in text


# --- significance -------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path, monkeypatch, tiny_document) -> Callable[..., dict]:
    """Return a function that writes trials of the LSTM, one per seed, and returns their run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies/trials").mkdir(parents=True)

    def write(accuracies: list[float | None], changes: dict, **job) -> dict:
        params = set_keys(tiny_document, changes)
        for seed, accuracy in enumerate(accuracies):
            own = parse_params(set_keys(params, {"seed": seed})).model_dump()
            result = {"val_accuracy": 0.5} | ({} if accuracy is None else {"accuracy": accuracy})
            facts = {"model": "lstm", "params": own, "libraries": LIBRARIES} | job
            name = f"studies/trials/{len(list(tmp_path.glob('studies/trials/*')))}.json"
            (tmp_path / name).write_text(json.dumps({"job": facts, "result": result}))
        versions = {"python": "3.12", **LIBRARIES}
        timing = {f"metrics/timing/{name}.json": {"versions": versions} for name in ("cnn", "lstm")}
        return {"params.yaml": params} | timing

    return write


def test_only_trials_with_equal_settings_code_and_libraries_count(record, tmp_path):
    run = record([0.5, 0.7], {"epochs": 3, "train.threads": 1, "cnn.dropout": 0.1})
    for changes in ({"lstm.dropout": 0.3}, {"train.batch_size": 7}, {"prepare.split_seed": 9}):
        record([0.1, 0.2, 0.3], {"epochs": 3} | changes)
    record([0.1, 0.2, 0.3], {"epochs": 3}, libraries=LIBRARIES | {"keras": "2"})
    record([None] * 4, {"epochs": 3})  # from a search
    incomplete = tmp_path / "studies/trials/.0-abcdefgh.json"
    incomplete.write_text('{"job": {"model', encoding="utf-8")
    trials = recorded_trials()
    assert accuracies_by_seed("lstm", run, trials) == {0: 0.5, 1: 0.7}
    assert accuracies_by_seed("cnn", run, trials) == {}
    assert accuracies_by_seed("ensemble", run, trials) == {}
    old = run | {"params.yaml": {"epochs": 3, "from": "another time"}}
    assert accuracies_by_seed("lstm", old, trials) == {}
    record([0.9], {"epochs": 3}, results_version=2)
    assert accuracies_by_seed("lstm", run, recorded_trials()) == {0: 0.9}


@pytest.mark.parametrize(
    ("difference", "word"),
    [(0.0063, "significant"), (-0.0063, "significant"), (0.0061, "not significant")],
)
def test_the_spread_over_seeds_decides(difference, word):
    seeds = dict(enumerate([0.5, 0.501, 0.499, 0.502, 0.498]))
    # t(0.975, 4) = 2.776, times sqrt(2) × 0.00158
    assert by_seeds(difference, seeds, seeds) == f"{word} (seeds: ±0.62 points, n = 5)"
    assert by_seeds(difference, seeds, {0: 0.5}) == ""


def test_mcnemar_counts_the_images_that_only_one_side_has_right():
    def rows(guesses: str) -> list[dict[str, str]]:
        return [{"actual": "1", "predicted": guess} for guess in guesses]

    expected = "significant (test images: p = 0.031, +0 −6)"  # 2 × 0.5⁶
    assert by_images(rows("111111"), rows("222222")) == expected
    assert by_images(rows("12"), rows("12")) == "not significant (test images: p = 1, +0 −0)"


def test_a_run_uses_the_seeds_if_both_sides_have_trials(work, enter):
    edit(work, EVALUATION, {"lstm.accuracy": 0.9, "ensemble.accuracy": 0.9})
    libraries = json.loads(work.read("metrics/timing/lstm.json"))["versions"]
    params = parse_params(work.document).model_dump()
    work.path("studies/trials").mkdir()
    for seed, accuracy in enumerate([0.5, 0.4, 0.6]):
        job = {"model": "lstm", "params": params | {"seed": seed}, "libraries": libraries}
        trial = json.dumps({"job": job, "result": {"accuracy": accuracy}})
        work.path(f"studies/trials/{seed}.json").write_text(trial, encoding="utf-8")
    enter(work)
    rows = rows_of(review("main"))
    assert "(seeds: ±60.85 points, n = 3)" in rows["lstm"]
    assert "(test images: " in rows["ensemble"]


def test_values_stay_inside_their_cell():
    assert cell("a|b\n<script>`&@all") == "a\\|b &lt;script&gt;'&amp;@\u200ball"
