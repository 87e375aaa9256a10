"""Compare a branch's parameters and metrics with those of its base, as Markdown.

    python -m tools.review main        writes review/review.md and review/curves.svg
    python -m tools.review --check     fails if dvc.lock does not match the code and parameters

Compares the work tree with the commit at which it left the base.
"""

from __future__ import annotations

import argparse
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from scipy import stats

from stages.common.cli import StageError, one_line, run
from stages.common.files import read_csv, read_json, write_bytes, write_text
from stages.common.git import git
from stages.common.overrides import flatten
from stages.common.params import load_params, parse_params, read_yaml, with_added
from stages.evaluation import CONFIDENCE, SIGNIFICANT
from stages.evaluation.significance import mcnemar
from stages.reporting import figures as drawing
from stages.reporting.sentences import p_text, percent, points
from stages.reporting.targets import against_study, is_low, study_of
from stages.reporting.templating import render

OUT = Path("review")
TEMPLATE = Path(__file__).parent / "templates/review.md.jinja"
PARAMS, LOCK, TESTED, RESULTS = (
    "params.yaml",
    "dvc.lock",
    "metrics/test.json",
    "metrics/results.csv",
)
PER_CLASS = "plots/per_class.csv"
FRACTIONS = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error", "robustness")
CURVES = {"val_accuracy": "validation accuracy (%)", "val_loss": "validation loss (nats)"}
MARKDOWN = str.maketrans({
    "|": "\\|", "&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'", "\n": " ", "@": "@\u200b"
})  # fmt: skip

Files = Mapping[str, Any]  # parsed params.yaml, dvc.lock, metrics and plots, by path


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
    order = [*tested(after), *tested(before)]
    metrics.sort(key=lambda row: position(row["key"], order))
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
            "low": low_runs(after),
            "curves": os.environ.get("CURVES_URL", ""),
        },
        cell=cell,
        metric=metric,
    )


def position(key: str, models: Sequence[str]) -> tuple[int, str]:
    """Return the sort key of a metric such as `cnn.val.loss`: position of the model, then name."""
    model = key.split(".")[0]
    return models.index(model) if model in models else len(models), key


def metric(key: str, row: Mapping[str, Any]) -> list[str]:
    """Return a metric before, after and their difference as texts, fractions in percent."""
    values = row["old"], row["new"], row["diff"]
    if key.rsplit(".", 1)[-1] in FRACTIONS:
        old, new, difference = values
        change = "–" if difference is None else f"{points(difference)} points"
        return [*(percent(v) if isinstance(v, float) else "–" for v in (old, new)), change]
    return ["–" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in values]


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
        extract(commit, [PARAMS, LOCK, "metrics", "plots"], Path(folder))
        try:
            return read_files(Path(folder))
        except StageError as error:
            raise StageError(f"{commit[:7]}: {str(error).replace(f'{folder}/', '')}") from None


def extract(commit: str, paths: Sequence[str], folder: Path) -> None:
    """Write the files of a commit that are at or below `paths` to `folder`. Leaves links out."""
    found = git("ls-tree", "--name-only", commit, "--", *paths).splitlines()
    packed = folder / "commit.tar"
    git("archive", "--output", str(packed), commit, "--", *found)
    with tarfile.open(packed) as archive:  # before 3.11.4, Python's extractall has no filters
        for member in archive:
            if member.isfile():
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    packed.unlink()


def read_files(folder: Path) -> Files:
    """Return the parsed parameters, lock file, metrics and plots in a folder."""
    files = {name: read_yaml(folder / name) for name in (PARAMS, LOCK) if (folder / name).exists()}
    found = [path for kind in ("metrics/*.*", "plots/**/*.csv") for path in folder.glob(kind)]
    for path in sorted(found):
        read = read_json if path.suffix == ".json" else read_csv
        files[path.relative_to(folder).as_posix()] = read(path)
    return files


def figures(files: Files) -> dict[str, Any]:
    """Return all metrics with dotted keys: `cnn.val.loss`."""
    return {
        key: value
        for path, content in files.items()
        if path.endswith(".json")
        for key, value in flatten(content).items()
    }


def tested(files: Files) -> dict[str, dict[str, Any]]:
    """Return each model's metrics on the test set."""
    return {model: figures["test"] for model, figures in files.get(TESTED, {}).items()}


def rows_of(files: Files, path: str, model: str) -> list[Mapping[str, str]]:
    """Return a model's rows of a CSV file with the column `model`."""
    return [row for row in files.get(path, []) if row["model"] == model]


def params_of(files: Files) -> dict[str, Any]:
    """Return the parameters that dvc.lock records for the run that produced the metrics."""
    recorded: dict[str, Any] = {}
    for name, stage in files.get(LOCK, {}).get("stages", {}).items():
        if name == "prepare" or name.startswith("train_"):
            recorded |= stage.get("params", {}).get(PARAMS, {})
    return recorded


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row ``key, old, new, diff`` per value that differs."""
    rows = [{"key": key, "old": old.get(key), "new": new.get(key)} for key in new | old]
    for row in rows:
        numbers = all(isinstance(row[side], int | float) for side in ("old", "new"))
        row["diff"] = row["new"] - row["old"] if numbers else None
    return [row for row in rows if row["old"] != row["new"]]


# --- stale stages -------------------------------------------------------------------------


def stale_stages() -> list[str]:
    """Return the stages whose code, parameters or metrics differ from those in dvc.lock.

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
    cached = {name: [out for out in stage["outs"] if isinstance(out, str)]
              for name, stage in stages.items()}  # fmt: skip
    ignored = ["data", *(path for paths in cached.values() for path in paths)]
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
            uncached = (stage.get(kind, []) for kind in ("outs", "metrics", "plots"))
            rebuilt += cached[name]
            rebuilt += [path for outs in uncached for out in outs if isinstance(out, dict)
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
    """Return a row for each model whose test metrics differ, and why they do not compare."""
    old_data, new_data = (side[PARAMS].get("dataset") for side in (before, after))
    old_tested, new_tested = tested(before), tested(after)
    reason, rows = "", []
    if old_tested and old_data != new_data:
        reason = f"the dataset changed from {old_data} to {new_data}"
    for model in new_tested | old_tested:
        old, new = old_tested.get(model), new_tested.get(model)
        if old == new:
            continue
        row = {"model": model, "old": old, "new": new, "verdict": ""}
        if old and new and not reason:
            counts = [
                {row["class"]: row["support"] for row in rows_of(side, PER_CLASS, model)}
                for side in (before, after)
            ]
            if counts[0] != counts[1]:
                reason = "the test images are not the same"
            else:
                difference = new["accuracy"] - old["accuracy"]
                row["verdict"] = by_seeds(
                    difference, study(before, model), study(after, model)
                ) or by_images(wrong_images(before, model), wrong_images(after, model))
        rows.append(row)
    return rows, reason


def study(files: Files, model: str) -> dict[str, Any] | None:
    """Return the study's cell with a run's settings and library versions, or None."""
    results = rows_of(files, RESULTS, model)
    try:
        params = parse_params(with_added(params_of(files))).model_dump()
    except StageError:  # the commit is from a time when params.yaml had other keys
        return None
    return study_of(model, params, results[0]) if results else None


def by_seeds(difference: float, *cells: Mapping[str, Any] | None) -> str:
    """Judge a difference by the spread over seeds; "" without a study of both sides.

    Two single runs differ by chance by up to Student's quantile times sqrt(s₁² + s₂²).
    """
    if None in cells:
        return ""
    n = min(cell["n"] for cell in cells)
    spread = sum(cell["accuracy_std"] ** 2 for cell in cells) ** 0.5
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * spread
    word = "significant" if abs(difference) > reach else "not significant"
    return f"{word} (seeds: ±{100 * reach:.2f} points, n = {n})"


def wrong_images(files: Files, model: str) -> set[str]:
    """Return the indices of the test images that a model misclassified."""
    return {row["image"] for row in rows_of(files, "plots/mistakes.csv", model)}


def by_images(old: set[str], new: set[str]) -> str:
    """Judge a difference by McNemar's exact test; the arguments are the misclassified images."""
    lost, won = len(new - old), len(old - new)
    p = mcnemar(won, lost)
    word = "significant" if p < SIGNIFICANT else "not significant"
    return f"{word} (test images: {p_text(p)}, +{won} −{lost})"


def low_runs(files: Files) -> list[str]:
    """Return one sentence for each model whose accuracy is lower than its study explains."""
    sentences = []
    for model, row in tested(files).items():
        images = sum(int(each["support"]) for each in rows_of(files, PER_CLASS, model))
        cell = study(files, model)
        if cell and is_low(row["accuracy"], images, cell):
            sentences.append(against_study(model, row["accuracy"], images, cell))
    return sentences


# --- curves -------------------------------------------------------------------------------


def draw_curves(before: Files, after: Files) -> None:
    """Draw the validation curves of each model: the base dashed and grey, the work tree on top."""
    styles = {"base": {"color": drawing.NEUTRAL, "ls": "--"}, "here": drawing.look("", [""])}
    names = [f"plots/history/{model}.csv" for model in tested(after) | tested(before)]
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
