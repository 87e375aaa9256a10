"""Targets and reported figures that results are compared with.

Both are data: `studies/targets.yaml` and `studies/published.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from stages.common.cli import StageError
from stages.common.params import Count, Section, read_yaml

PUBLISHED = Path("studies/published.yaml")
TARGETS = Path("studies/targets.yaml")

Proportion = Annotated[float, Field(gt=0, le=1)]


class Target(Section):
    """A target for the test accuracy of a model after `epochs` epochs."""

    dataset: str
    model: str
    epochs: Count
    accuracy: Proportion


class Published(Section):
    """A test result that somebody reported. `epochs` is None if they did not state it."""

    dataset: str
    model: str
    epochs: Count | None
    accuracy: Proportion
    loss: Annotated[float, Field(gt=0)] | None
    source: str
    note: str | None


def read_entries(path: Path, kind: type[Section]) -> list[Any]:
    """Read a YAML list of entries. An invalid entry raises StageError with its position."""
    entries = read_yaml(path, "it is part of the repository")
    try:
        return TypeAdapter(list[kind]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StageError(f"{path}: entry {where}: {first['msg']}") from None


def published(dataset: str, epochs: Sequence[int]) -> list[Published]:
    """Return the reported figures for a dataset and these numbers of epochs, or unstated ones."""
    return [
        entry
        for entry in read_entries(PUBLISHED, Published)
        if entry.dataset == dataset and (entry.epochs is None or entry.epochs in epochs)
    ]


def targets(dataset: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the target of each model in `rows` that has one for its dataset and epochs."""
    known = {
        (entry.dataset, entry.model, str(entry.epochs)): entry.accuracy
        for entry in read_entries(TARGETS, Target)
    }
    wanted = {row["model"]: (dataset, row["model"], str(row["epochs"])) for row in rows}
    return {model: known[key] for model, key in wanted.items() if key in known}


def missed(dataset: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each result below its target."""
    wanted = targets(dataset, rows)
    return [
        f"{row['model']}: test accuracy {float(row['test_accuracy']):.2%} misses the target of "
        f"{wanted[row['model']]:.2%} for {dataset} after {row['epochs']} epochs"
        for row in rows
        if row["model"] in wanted and float(row["test_accuracy"]) < wanted[row["model"]]
    ]
