"""`make review`: what a reviewer reads about a branch, made from real branches."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml
from review_project import call, clone, commit, recorded, set_params

from stages.review import by_mcnemar, cell

__all__ = ["clone", "recorded"]


def review(folder: Path) -> str:
    call(folder, "python", "-m", "stages.review", "main")
    return (folder / "review/review.md").read_text(encoding="utf-8")


def change_figures(folder: Path, accuracy: float) -> None:
    path = folder / "metrics/evaluation.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    figures["cnn"]["accuracy"] = accuracy
    path.write_text(json.dumps(figures), encoding="utf-8")


def test_other_units_for_the_lstm_reproduced(recorded, tmp_path):
    folder = tmp_path / "work"
    call(tmp_path, "git", "clone", "-q", str(recorded), str(folder))
    call(folder, "dvc", "cache", "dir", "--local", str(recorded / ".dvc/cache"))
    call(folder, "dvc", "checkout")
    call(folder, "git", "checkout", "-q", "-b", "units")
    set_params(folder, lstm={"units": [24]})
    call(folder, "dvc", "repro")
    commit(folder, "more units")
    text = review(folder)
    assert "| lstm.units | [8] | [24] |" in text
    row = re.search(r"\| lstm \| [\d.]+ → [\d.]+ % \| [▲▼=] .*McNemar p = .*", text)
    assert row, text
    assert "| cnn |" not in text  # not retrained, hence the same
    assert "Stale" not in text
    assert "metrics/train/lstm.json" in text.split("<details>")[-1]
    curves = (folder / "review/curves.svg").read_text(encoding="utf-8")
    assert curves.lstrip().startswith("<?xml")
    assert len(text) < 60_000
    assert not call(folder, "git", "status", "--short")


def test_a_stale_lock_names_the_stages(clone):
    set_params(clone, lstm={"units": [9]})
    commit(clone, "forgot to reproduce")
    text = review(clone)
    assert re.search(r"\*\*Stale: train_lstm, evaluate, report\.\*\*", text), text
    assert "train_cnn" not in text
    checked = subprocess.run(
        [sys.executable, "-m", "stages.review", "--check"],
        cwd=clone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 1
    assert checked.stderr.startswith("error: dvc.lock is stale: train_lstm")


def test_only_the_readme(clone):
    (clone / "README.md").write_text("# other\n", encoding="utf-8")
    commit(clone, "readme")
    lines = review(clone).strip().splitlines()
    assert lines[-1].startswith("Nothing changed:")
    assert len(lines) == 3
    assert "records" in call(clone, "python", "-m", "stages.review", "--check")


def test_a_missed_floor(clone):
    floor = {"dataset": "digits", "epochs": 1, "model": "cnn", "accuracy": 0.99}
    (clone / "studies").mkdir(exist_ok=True)
    (clone / "studies/floors.yaml").write_text(yaml.safe_dump([floor]), encoding="utf-8")
    change_figures(clone, 0.5)
    commit(clone, "worse")
    assert "**Below the floor:** cnn: 50.00%, floor 99.00%." in review(clone)


def test_another_dataset_is_not_compared(clone):
    set_params(clone, dataset="mnist")
    change_figures(clone, 0.99)
    commit(clone, "mnist")
    text = review(clone)
    assert "not comparable:** the dataset changed from digits to mnist" in text
    assert "▲" not in text


def test_a_study_gives_the_spread(clone):
    place = {"dataset": "digits", "model": "cnn", "epochs": 1}
    tested = {"accuracy_mean": 0.5, "accuracy_std": 0.001}
    studies = {
        "a_search": [place | {"n": 5, "recipe": {}, "val_accuracy_std": 0.2}],
        "another_recipe": [place | tested | {"n": 9, "recipe": {"cnn.dense": 9}}],
        "epochs": [place | tested | {"n": 5, "recipe": {}}],
        "one_seed": [place | tested | {"n": 1, "recipe": {}}],
    }
    for name, cells in studies.items():
        results = clone / f"studies/results/{name}.json"
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(cells), encoding="utf-8")
    change_figures(clone, 0.999)
    commit(clone, "better")
    # t(0.975, 4) = 2.776; times sqrt(2) × 0.001
    assert "beyond the seeds' spread, ±0.39% (study, n = 5)" in review(clone)


def test_mcnemar_counts_the_discordant_images():
    def rows(guesses):
        return [{"actual": "1", "predicted": guess} for guess in guesses]

    assert "p = 0.031, +0 −6" in by_mcnemar(rows("111111"), rows("222222"))  # 2 × 0.5⁶
    assert by_mcnemar(rows("12"), rows("12")).startswith("within")


def test_values_cannot_break_out_of_a_cell():
    assert cell("a|b\n<script>`@all") == "a\\|b &lt;script&gt;'@\u200ball"


def test_an_unknown_base_ends_in_a_line(clone):
    done = subprocess.run(
        [sys.executable, "-m", "stages.review", "nowhere"],
        cwd=clone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: git merge-base nowhere")
    assert len(done.stderr.splitlines()) == 1
