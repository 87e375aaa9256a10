"""What a branch did to the figures, as Markdown for its pull request.

    python -m tools.review main        writes review/review.md and review/curves.svg
    python -m tools.review --check     only: does dvc.lock record this code and these parameters?

Compares the work tree with the commit at which it left the base. The differences, the stale
stages and the curves' data are DVC's own; here they are judged and laid out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from scipy import stats

from stages.common.cli import StageError, run
from stages.common.files import read_json, write_text
from stages.common.params import load_params, model_names, parse_params
from stages.evaluation import CONFIDENCE, SIGNIFICANT
from stages.evaluation.significance import mcnemar
from stages.reporting.targets import TARGETS, Target, read_entries
from stages.reporting.templating import render

OUT = Path("review")
TEMPLATE = Path(__file__).parent / "templates/review.md.jinja"
EVALUATION = "metrics/evaluation.json"
TRIALS = Path("studies/trials")
CURVES = ("validation_accuracy", "validation_loss")  # of the top-level plots in dvc.yaml
MARKDOWN = str.maketrans(
    {"|": "\\|", "<": "&lt;", ">": "&gt;", "`": "'", "\n": " ", "@": "@\u200b"}
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Review the work tree against a base.")
    parser.add_argument("base", nargs="?", default="main")
    parser.add_argument("--check", action="store_true", help="only fail where dvc.lock is stale")
    arguments = parser.parse_args()
    if arguments.check:
        if stale := stale_stages():
            raise StageError(f"dvc.lock is stale: {', '.join(stale)}; `dvc repro`, then commit it")
        print("dvc.lock records this code and these parameters")
        return
    text = review(arguments.base)
    write_text(OUT / "review.md", text)
    print(text)


def review(base: str) -> str:
    """Return the review against `base` as Markdown, having drawn the curves."""
    from dvc.repo import Repo

    here = load_params().model_dump()
    commit = git("merge-base", base, "HEAD").strip()
    with Repo() as repo:
        parameters = flat(repo.params.diff(a_rev=commit, b_rev="workspace"))
        metrics = flat(repo.metrics.diff(a_rev=commit, b_rev="workspace"))
    there = load_yaml(show(commit, "params.yaml"))
    models, reason = compare_models(commit, there, here)
    if metrics:
        draw_curves(plots(commit), OUT / "curves.svg")
    return render(
        TEMPLATE,
        {
            "base": base,
            "commit": commit[:7],
            "parameters": parameters,
            "metrics": metrics,
            "models": models,
            "incomparable": reason,
            "stale": stale_stages(),
            "missed": missed_targets(here),
            "curves": os.environ.get("CURVES_URL", ""),
        },
        cell=cell,
    )


def cell(value: Any) -> str:
    """Return a value as text that can end neither a table's cell nor the page's structure."""
    text = f"{value:.6g}" if isinstance(value, float) else str("–" if value is None else value)
    return text.translate(MARKDOWN)


# --- what DVC and git say -----------------------------------------------------------------


def git(*arguments: str) -> str:
    """Return what git prints; StageError says what it complained of."""
    command = ["git", *arguments]  # the user's own git; no shell reads this
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- above
    if done.returncode:
        complaint = " ".join(done.stderr.split()) or "no common commit; fetch the full history"
        raise StageError(f"git {' '.join(arguments)}: {complaint}")
    return done.stdout


def show(commit: str, path: str) -> str:
    """Return a file at `commit`, "" where it is not in it."""
    return git("show", f"{commit}:{path}") if git("ls-tree", commit, path) else ""


def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- no shell, and arguments of ours
        [sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False
    )


def flat(difference: dict[str, Any]) -> list[dict[str, Any]]:
    """Return DVC's difference as rows ``file, key, old, new, diff``."""
    if errors := difference.get("errors"):
        raise StageError(f"DVC cannot read the figures of both revisions: {errors}")
    return [
        {"file": file, "key": key, "old": None, "new": None, "diff": None} | change
        for file, changes in difference.get("diff", {}).items()
        for key, change in changes.items()
    ]


def stale_stages() -> list[str]:
    """Return the stages whose recorded state is not that of the code and parameters.

    `dvc repro --dry` may exit with 0 all the same, and where the data are not at hand it fails at
    a stage that it would have to run: what it says names them in both cases.
    """
    done = dvc("repro", "--dry", "--allow-missing", "--keep-going")
    said = done.stdout + done.stderr
    told = re.findall(
        r"^Running stage .*|failed to reproduce .*|.* will be skipped due.*", said, re.M
    )
    named = {name for line in told for name in re.findall(r"'([\w.:/-]+)'", line)}
    if done.returncode and not named:
        raise StageError(f"dvc repro --dry: {' '.join(done.stderr.split())}")
    order = list(load_yaml(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"])
    return sorted(named, key=lambda name: order.index(name) if name in order else len(order))


def load_yaml(text: str) -> dict[str, Any]:
    return yaml.safe_load(text) or {}


# --- what a change means ------------------------------------------------------------------


def compare_models(commit: str, there: dict, here: dict) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each model whose test figures differ, and why they do not compare."""
    before = json.loads(show(commit, EVALUATION) or "{}")
    path = Path(EVALUATION)
    after = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    trials = recorded_trials()
    reason = ""
    if before and there.get("dataset") != here.get("dataset"):
        reason = f"the dataset changed from {there.get('dataset')} to {here.get('dataset')}"
    rows = []
    for model in after | before:
        old, new = before.get(model), after.get(model)
        if old == new:
            continue
        row = {"model": model, "old": old, "new": new, "verdict": ""}
        if old and new and not reason:
            old_rows = confusion(show(commit, f"plots/confusion/{model}.csv"))
            new_file = Path(f"plots/confusion/{model}.csv")
            new_rows = confusion(new_file.read_text(encoding="utf-8") if new_file.exists() else "")
            if [r["actual"] for r in old_rows] != [r["actual"] for r in new_rows]:
                reason = "the test images are not the same"
            else:
                difference = new["accuracy"] - old["accuracy"]
                row["verdict"] = by_study(model, difference, there, here, trials) or by_mcnemar(
                    old_rows, new_rows
                )
        rows.append(row)
    return rows, reason


def confusion(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def by_study(
    model: str, difference: float, there: dict, here: dict, trials: list[dict[str, Any]]
) -> str:
    """Judge a difference by the spread over seeds that studies found on both sides, if they did.

    Two single runs differ by chance by sqrt(s₁² + s₂²), times Student's quantile.
    """
    sides = [list(over_seeds(model, params, trials).values()) for params in (there, here)]
    n = min(len(accuracies) for accuracies in sides)
    if n < 2:
        return ""
    spread = sum(np.var(accuracies, ddof=1) for accuracies in sides) ** 0.5
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * spread
    beyond = "beyond" if abs(difference) > reach else "within"
    return f"{beyond} the seeds' spread, ±{reach:.2%} (study, n = {n})"


def recorded_trials() -> list[dict[str, Any]]:
    """Return the trials of all studies that are on disk."""
    paths = sorted(TRIALS.glob("[!.]*.json"))  # with a dot: what a kill left half written
    return [read_json(path) for path in paths]


def over_seeds(
    model: str, params: dict[str, Any], trials: list[dict[str, Any]]
) -> dict[int, float]:
    """Return, by seed, the test accuracies of the trials of a model with these settings.

    They may differ in the seed, the threads and the sections of other models. An ensemble has none.
    """
    if model not in model_names():
        return {}
    try:
        wanted = settled(model, parse_params(params).model_dump())
    except StageError:  # parameters of another day
        return {}
    found = {}
    for trial in trials:
        job, result = trial["job"], trial["result"]
        if (
            job["model"] == model
            and "accuracy" in result
            and settled(model, job["params"]) == wanted
        ):
            found[job["params"]["seed"]] = result["accuracy"]
    return found


def settled(model: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return what of a run's parameters a model's accuracy follows from, but for luck."""
    train = {key: value for key, value in params["train"].items() if key != "threads"}
    shared = {key: params[key] for key in ("dataset", "prepare", "epochs")}
    return shared | {"train": train, "section": params[model]}


def by_mcnemar(old: list[dict[str, str]], new: list[dict[str, str]]) -> str:
    """Judge a difference by McNemar's exact test on the test images (one seed each)."""
    pairs = [
        (a["actual"] == a["predicted"], b["actual"] == b["predicted"])
        for a, b in zip(old, new, strict=True)
    ]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(won, lost)
    beyond = "beyond" if p < SIGNIFICANT else "within"
    return f"{beyond} chance on these images (McNemar p = {p:.2g}, +{won} −{lost}; one seed)"


def missed_targets(params: dict[str, Any]) -> list[str]:
    """Return a sentence for each model whose test accuracy is below its target."""
    if not Path(EVALUATION).exists():
        return []
    evaluation = json.loads(Path(EVALUATION).read_text(encoding="utf-8"))
    return [
        f"{model}: {evaluation[model]['accuracy']:.2%}, target {target.accuracy:.2%}"
        for target in read_entries(TARGETS, Target)
        if (target.dataset, target.epochs) == (params["dataset"], params["epochs"])
        and (model := target.model) in evaluation
        and evaluation[model]["accuracy"] < target.accuracy
    ]


# --- curves -------------------------------------------------------------------------------


def plots(commit: str) -> dict[str, Any]:
    """Return DVC's plots of both revisions: `{name: [{"content": …}]}`."""
    done = dvc("plots", "diff", commit, "--targets", *CURVES, "--json")
    if done.returncode:
        raise StageError(f"dvc plots diff: {' '.join(done.stderr.split())}")
    return json.loads(done.stdout)["data"]


def draw_curves(data: dict[str, Any], path: Path) -> None:
    """Draw the models' curves: the base dashed and grey, the work tree in colour on top."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "review"  # equal curves, equal bytes
    import matplotlib.pyplot as plt

    values = {name: data[name][0]["content"]["data"]["values"] for name in CURVES if data.get(name)}
    files = list(dict.fromkeys(row["filename"] for rows in values.values() for row in rows))
    if not files:
        return
    figure, grid = plt.subplots(
        len(values), len(files), figsize=(3.2 * len(files), 2.4 * len(values)),
        sharex="col", sharey="row", squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes_row, (name, rows) in zip(grid, values.items(), strict=True):
        column = name.replace("validation", "val")
        for axes, file in zip(axes_row, files, strict=True):
            for here, style in (
                (False, {"color": "0.5", "ls": "--"}),
                (True, {"color": "#0072B2"}),
            ):
                points = [
                    (int(row["epoch"]), float(row[column]))
                    for row in rows
                    if row["filename"] == file and (row["rev"] == "workspace") is here
                ]
                if points:
                    label = "here" if here else "base"
                    axes.plot(*zip(*points, strict=True), marker=".", label=label, **style)
            axes.set_title(Path(file).stem)
            axes.xaxis.get_major_locator().set_params(integer=True)  # epochs
        axes_row[0].set_ylabel(name.replace("_", " "))
    grid[0][0].legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    run(main)
