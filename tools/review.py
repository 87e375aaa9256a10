"""Compare a branch's parameters and figures with those of its base, as Markdown.

    python -m tools.review main        writes review/review.md and review/curves.svg
    python -m tools.review --check     fails if dvc.lock does not match the code and parameters

Compares the work tree with the commit at which it left the base.
"""

from __future__ import annotations

import argparse
import os
import re
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy import stats

from stages.common.cli import StageError, one_line, run
from stages.common.files import read_csv, read_json, write_bytes, write_text
from stages.common.overrides import flatten
from stages.common.params import load_params, parse_params, read_yaml, with_added
from stages.evaluation import CONFIDENCE, SIGNIFICANT
from stages.evaluation.significance import mcnemar
from stages.reporting import figures as drawing
from stages.reporting.sentences import p_text
from stages.reporting.targets import missed
from stages.reporting.templating import render
from tools.git import git

OUT = Path("review")
TEMPLATE = Path(__file__).parent / "templates/review.md.jinja"
PARAMS, EVALUATION, TRIALS = "params.yaml", "metrics/evaluation.json", Path("studies/trials")
CURVES = {"val_accuracy": "validation accuracy (%)", "val_loss": "validation loss (nats)"}
MARKDOWN = str.maketrans({
    "|": "\\|", "&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'", "\n": " ", "@": "@\u200b"
})  # fmt: skip

Files = Mapping[str, Any]  # the parsed params.yaml, metrics (JSON) and plots (CSV), by path


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the work tree with a base.")
    parser.add_argument("base", nargs="?", default="main", help="branch or commit (default: main)")
    parser.add_argument("--check", action="store_true", help="only check dvc.lock")
    arguments = parser.parse_args()
    if not arguments.check:
        text = review(arguments.base)
        write_text(OUT / "review.md", text)
        print(text)
    elif stale := stale_stages():
        raise StageError(f"dvc.lock is stale: {', '.join(stale)}; `dvc repro`, then commit it")
    else:
        print("dvc.lock records this code and these parameters")


def review(base: str) -> str:
    """Return the review against `base` as Markdown, and draw `review/curves.svg`."""
    load_params()
    stale, after = stale_stages(), read_files(Path())
    commit = common_commit(base)
    before = read_commit(commit)
    models, reason = compare_models(before, after)
    metrics = changes(*(figures(side) for side in (before, after)))
    order = list(after.get(EVALUATION, {}))
    metrics.sort(
        key=lambda row: ([m not in re.split(r"\W", row["key"]) for m in order], row["key"])
    )
    if metrics:
        draw_curves(before, after)
    return render(
        TEMPLATE,
        {
            "base": base,
            "commit": commit[:7],
            "parameters": changes(flatten(before[PARAMS]), flatten(after[PARAMS])),
            "metrics": metrics,
            "models": models,
            "incomparable": reason,
            "stale": stale,
            "missed": missed_targets(after),
            "curves": os.environ.get("CURVES_URL", ""),
        },
        cell=cell,
    )


def cell(value: Any) -> Markup:
    """Return a value as text that stays inside a cell of a Markdown table."""
    text = f"{value:.6g}" if isinstance(value, float) else str("–" if value is None else value)
    return Markup(text.translate(MARKDOWN))  # noqa: S704 -- escaped


# --- reading both sides -------------------------------------------------------------------


def common_commit(base: str) -> str:
    """Return the commit at which the current branch left `base`."""
    try:
        return git("merge-base", base, "HEAD").strip()
    except StageError as error:
        raise StageError(
            f"{error}; fetch it with `git fetch` (in a shallow clone with `git fetch --unshallow`),"
            " or name another base: `make review BASE=origin/main`"
        ) from None


def read_commit(commit: str) -> Files:
    """Return the same as `read_files`, for a commit."""
    with tempfile.TemporaryDirectory() as folder:
        found = git("ls-tree", "--name-only", commit, PARAMS, "metrics", "plots").split()
        git("archive", "--output", f"{folder}/all.tar", commit, *found)
        with tarfile.open(f"{folder}/all.tar") as archive:
            archive.extractall(folder, filter="data")
        try:
            return read_files(Path(folder))
        except StageError as error:
            raise StageError(f"{commit[:7]}: {str(error).replace(f'{folder}/', '')}") from None


def read_files(folder: Path) -> Files:
    """Return the parsed parameters, metrics and plots in a folder."""
    files = {PARAMS: read_yaml(folder / PARAMS)}
    for path in sorted([*folder.glob("metrics/**/*.json"), *folder.glob("plots/*/*.csv")]):
        read = read_json if path.suffix == ".json" else read_csv
        files[path.relative_to(folder).as_posix()] = read(path)
    return files


def figures(files: Files) -> dict[str, Any]:
    """Return all metrics as {"FILE: KEY": value}."""
    return {
        f"{path}: {key}": value
        for path, content in files.items()
        if path.endswith(".json")
        for key, value in flatten(content).items()
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row ``key, old, new, diff`` per value that differs."""
    rows = [{"key": key, "old": old.get(key), "new": new.get(key)} for key in new | old]
    for row in rows:
        numbers = all(isinstance(row[side], int | float) for side in ("old", "new"))
        row["diff"] = row["new"] - row["old"] if numbers else None
    return [row for row in rows if row["old"] != row["new"]]


# --- stale stages -------------------------------------------------------------------------


def stale_stages() -> list[str]:
    """Return the stages whose code, parameters or figures differ from those in dvc.lock.

    The content of `data/` does not count: it may be missing, or belong to another commit.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    git("rev-parse", "HEAD")
    try:
        with Repo() as repo:
            status = repo.status()
    except DvcException as error:
        raise StageError(one_line(error)) from None
    stages, lock = (
        read_yaml(path)["stages"] if path.exists() else {}
        for path in (Path("dvc.yaml"), Path("dvc.lock"))
    )
    ignored = ["data", *(path for stage in stages.values() for path in stage["outs"])]
    stale, rebuilt = [], []
    for name, stage in stages.items():  # in the order of the pipeline
        changed = [
            path
            for change in status.get(name, [])
            for path in ([change] if isinstance(change, str) else next(iter(change.values())))
            if not any(overlap(path, output) for output in ignored)
        ]
        affected = any(overlap(dep, output) for dep in stage["deps"] for output in rebuilt)
        if changed or affected or (name in lock and not is_consistent(lock[name], lock)):
            stale.append(name)
            rebuilt += stage["outs"]
            rebuilt += [path for kind in ("metrics", "plots") for out in stage.get(kind, [])
                        for path in out]  # fmt: skip
    return stale


def overlap(one: str, other: str) -> bool:
    """Return whether one path is, or contains, the other."""
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def is_consistent(stage: Mapping[str, Any], lock: Mapping[str, Any]) -> bool:
    """Return whether a stage in dvc.lock used the files that earlier stages in it produced.

    After a merge that took one side's entry of the stage, it did not.
    """
    outputs = {out["path"]: out["md5"] for entry in lock.values() for out in entry["outs"]}
    return all(outputs.get(dep["path"], dep["md5"]) == dep["md5"] for dep in stage["deps"])


# --- what a change means ------------------------------------------------------------------


def compare_models(before: Files, after: Files) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each model whose test figures differ, and why they do not compare."""
    old_data, new_data = (side[PARAMS].get("dataset") for side in (before, after))
    old_tested, new_tested = (side.get(EVALUATION, {}) for side in (before, after))
    same_data = old_data == new_data or not old_tested
    reason = "" if same_data else f"the dataset changed from {old_data} to {new_data}"
    trials, rows = recorded_trials(), []
    for model in new_tested | old_tested:
        old, new = old_tested.get(model), new_tested.get(model)
        if old == new:
            continue
        row = {"model": model, "old": old, "new": new, "verdict": ""}
        if old and new and not reason:
            guesses = [side.get(f"plots/confusion/{model}.csv", []) for side in (before, after)]
            if len({tuple(guess["actual"] for guess in table) for table in guesses}) > 1:
                reason = "the test images are not the same"
            else:
                seeds = [accuracies_by_seed(model, side, trials) for side in (before, after)]
                difference = new["accuracy"] - old["accuracy"]
                row["verdict"] = by_seeds(difference, *seeds) or by_images(*guesses)
        rows.append(row)
    return rows, reason


def by_seeds(difference: float, *sides: Mapping[int, float]) -> str:
    """Judge a difference by the spread over seeds; "" without two recorded trials on each side.

    Two single runs differ by chance by up to Student's quantile times sqrt(s₁² + s₂²).
    """
    n = min(len(accuracies) for accuracies in sides)
    if n < 2:
        return ""
    spread = sum(np.var([*accuracies.values()], ddof=1) for accuracies in sides) ** 0.5
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * spread
    word = "significant" if abs(difference) > reach else "not significant"
    return f"{word} (seeds: ±{100 * reach:.2f} points, n = {n})"


def by_images(old: Sequence[Mapping[str, str]], new: Sequence[Mapping[str, str]]) -> str:
    """Judge a difference by McNemar's exact test on the paired test images."""
    pairs = [
        tuple(guess["actual"] == guess["predicted"] for guess in pair)
        for pair in zip(old, new, strict=True)
    ]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(won, lost)
    word = "significant" if p < SIGNIFICANT else "not significant"
    return f"{word} (test images: {p_text(p)}, +{won} −{lost})"


def recorded_trials() -> list[dict[str, Any]]:
    """Return the recorded trials of the latest training code that were scored on the test set."""
    trials = [read_json(path) for path in sorted(TRIALS.glob("[!.]*.json"))]  # .*: incomplete
    versions = [trial["job"].get("results_version", 1) for trial in trials]
    return [
        trial
        for trial, version in zip(trials, versions, strict=True)
        if version == max(versions) and "accuracy" in trial["result"]
    ]


def accuracies_by_seed(
    model: str, files: Files, trials: Sequence[Mapping[str, Any]]
) -> dict[int, float]:
    """Return {seed: test accuracy} of the trials with a run's settings and library versions."""
    timing = files.get(f"metrics/timing/{model}.json")
    if not timing:
        return {}
    try:
        wanted = comparable(model, parse_params(files[PARAMS]).model_dump())
    except StageError:  # from a time when params.yaml had other keys
        return {}
    return {
        job["params"]["seed"]: trial["result"]["accuracy"]
        for trial in trials
        if (job := trial["job"])["model"] == model
        and job["libraries"].items() <= timing["versions"].items()
        and comparable(model, with_added(job["params"])) == wanted
    }


def comparable(model: str, params: Mapping[str, Any]) -> list[Any]:
    """Return the parameters that determine a model's accuracy, without seed and threads."""
    train = {key: value for key, value in params["train"].items() if key != "threads"}
    return [train, *(params[key] for key in ("dataset", "prepare", "epochs", model))]


def missed_targets(files: Files) -> list[str]:
    """Return one sentence for each model whose test accuracy is below its target."""
    rows = [
        {"model": model, "epochs": training["epochs"], "test_accuracy": tested["accuracy"]}
        for model, tested in files.get(EVALUATION, {}).items()
        if (training := files.get(f"metrics/train/{model}.json"))
    ]
    return missed(files[PARAMS]["dataset"], rows)


# --- curves -------------------------------------------------------------------------------


def draw_curves(before: Files, after: Files) -> None:
    """Draw the validation curves of each model: the base dashed and grey, the work tree on top."""
    styles = {"base": {"color": drawing.NEUTRAL, "ls": "--"}, "here": drawing.look("", [""])}
    models = after.get(EVALUATION, {}) | before.get(EVALUATION, {})
    names = [f"plots/history/{model}.csv" for model in models]
    histories = [name for name in names if name in after or name in before]
    panels = {
        f"{Path(name).stem}: {title}": {
            label: (
                [int(row["epoch"]) for row in side[name]],
                [float(row[column]) for row in side[name]],
                style,
            )
            for (label, style), side in zip(styles.items(), (before, after), strict=True)
            if name in side
        }
        for column, title in CURVES.items()
        for name in histories
    }
    with drawing.styled():
        figure = drawing.curves(panels, columns=len(histories))
        write_bytes(OUT / "curves.svg", drawing.as_svg_file(figure))


if __name__ == "__main__":
    run(main)
