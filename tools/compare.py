"""Print all experiments and the work tree as one table.

    python -m tools.compare

One row per experiment, below the commit that it started from. Each shows the parameters that differ
from HEAD's, accuracies in percent on validation and test data, and seconds of training (all
models). `*` marks the best value of a column. Choose by validation accuracy: the test set is for
the final comparison.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.cli import StageError, run
from stages.common.git import git
from stages.common.overrides import flatten, override_text
from stages.common.params import ENSEMBLE
from stages.reporting.table import RESULTS

WIDTH = 120  # characters of a line
MIN_CHANGED = 12  # characters of the column of changed parameters
MAX_NAME = 24  # characters of an experiment's name
WORK_TREE = "workspace"  # DVC's name


def main() -> None:
    git("rev-parse", "HEAD")  # a clear message if this is not a git repository
    print(as_table(experiments()))


def experiments() -> list[dict[str, Any]]:
    """Return the work tree, HEAD and every other commit with experiments, in DVC's order.

    Each commit is followed by its experiments.

    Returns
    -------
    list of dict
        ``name`` (of an experiment, `work tree`, `HEAD` or a short commit); ``state`` (Success,
        Queued, Running or Failed); ``params`` and ``metrics`` with dotted keys; ``seconds`` of
        training, None if unknown.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            baselines = repo.experiments.ls(all_commits=True)
            head = git("rev-parse", "HEAD").strip()
            found = repo.experiments.show(["HEAD", *(rev for rev in baselines if rev != head)])
    except DvcException as error:
        raise StageError(f"DVC cannot list the experiments: {error}") from None
    rows = []
    for state in found:
        commits = {WORK_TREE: "work tree", head: "HEAD"}
        rows.append(_row(state, commits.get(state.rev, state.rev[:7]), "Success"))
        for group in state.experiments or []:
            status = group.executor.state if group.executor else "Success"
            rows += [_row(each, each.name or each.rev[:7], status) for each in group.revs]
    return rows


def _row(state: Any, name: str, status: str) -> dict[str, Any]:
    data = state.data
    return {
        "name": name,
        "state": status.capitalize(),
        "params": _merged(data.params) if data else {},
        "metrics": _merged(data.metrics) if data else {},
        "seconds": _seconds(state.rev) if data and data.metrics else None,
    }


def _merged(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all files with dotted keys. Unreadable files are left out."""
    merged: dict[str, Any] = {}
    for result in files.values():
        merged |= flatten(result.get("data") or {})
    return merged


def _seconds(rev: str) -> float | None:
    """Return the seconds of training of all models together at a revision, None if unknown."""
    try:
        if rev == WORK_TREE:
            text = Path(RESULTS).read_text(encoding="utf-8")
        else:
            text = git("show", f"{rev}:./{RESULTS}")
    except (OSError, StageError):  # the run has no table of results
        return None
    rows = csv.DictReader(io.StringIO(text))
    try:
        return sum(float(row["train_seconds"]) for row in rows if row["model"] != ENSEMBLE)
    except (KeyError, TypeError, ValueError):  # conflict markers, or a part of a file
        return None


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the experiments as text, at most `WIDTH` characters wide."""
    base = next((row["params"] for row in rows if row["name"] == "HEAD"), {})
    models = dict.fromkeys(
        key.split(".")[0] for row in rows for key in row["metrics"] if key.endswith("test.accuracy")
    )
    columns: dict[tuple[str, str], list[str]] = {("", "experiment"): _aligned(map(_labelled, rows))}
    for model, part in product(models, ("val", "test")):
        values = [_percent(row["metrics"].get(f"{model}.{part}.accuracy")) for row in rows]
        if any(value is not None for value in values):
            columns[model, part] = _marked(values, max, ".2f")
    columns["training", "(s)"] = _marked([row["seconds"] for row in rows], min, ".0f")
    table = pd.DataFrame(columns)
    width = max(len(line) for line in table.to_string(index=False).splitlines())
    room = max(MIN_CHANGED, WIDTH - width - 1)
    changed = _aligned(_shortened(_changes(row["params"], base), room) for row in rows)
    table.insert(1, ("", "changed"), changed)
    return table.to_string(index=False)


def _aligned(texts: Iterable[str]) -> list[str]:
    """Return texts of equal length, so that pandas aligns them to the left."""
    texts = list(texts)
    return [text.ljust(max(map(len, texts))) for text in texts]


def _labelled(row: Mapping[str, Any]) -> str:
    name = _shortened(row["name"], MAX_NAME)
    return name if row["state"] == "Success" else f"{name} ({row['state'].lower()})"


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _marked(values: list[float | None], best: Any, form: str) -> list[str]:
    """Format values and mark the best ones, as shown, with `*` if they differ."""
    texts = ["" if value is None else f"{value:{form}}" for value in values]
    known = {text for text in texts if text}
    top = best(known, key=float) if len(known) > 1 else None
    return [f"{text}*" if text and text == top else f"{text} " for text in texts]


def _changes(params: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Return the parameters that differ from the commit's, as `-S` takes them."""
    return " ".join(
        f"{key}={override_text(value)}" for key, value in params.items() if base.get(key) != value
    )


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


if __name__ == "__main__":
    run(main)
