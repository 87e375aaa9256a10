"""Targets and reported figures to compare results with.

Read from `studies/targets.yaml` and `studies/published.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from stages.common.cli import StageError
from stages.common.params import Count, Section, read_yaml
from stages.reporting.sentences import percent

PUBLISHED = Path("studies/published.yaml")
TARGETS = Path("studies/targets.yaml")

Proportion = Annotated[float, Field(gt=0, le=1)]


class Target(Section):
    """A target for a model's test accuracy after `epochs` epochs, meant for a mean over seeds."""

    dataset: str
    model: str
    epochs: Count
    accuracy: Proportion


class Published(Section):
    """A test result that somebody else reported. What they did not state is None."""

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
    """Return a dataset's reported figures for these numbers of epochs, or for unstated ones."""
    return [
        entry
        for entry in read_entries(PUBLISHED, Published)
        if entry.dataset == dataset and (entry.epochs is None or entry.epochs in epochs)
    ]


def missed_target(dataset: str, model: str, epochs: int | str, accuracy: float) -> float | None:
    """Return the target that a test accuracy, or a mean of several, misses; None if it does not."""
    for entry in read_entries(TARGETS, Target):
        if (entry.dataset, entry.model, str(entry.epochs)) == (dataset, model, str(epochs)):
            below = round(accuracy, 9) < entry.accuracy  # a mean has rounding errors
            return entry.accuracy if below else None
    return None


def missed(dataset: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each result below its target.

    Parameters
    ----------
    rows
        One per model, with ``model``, ``epochs`` and ``test_accuracy`` (a fraction).
    """
    sentences = []
    for row in rows:
        accuracy = float(row["test_accuracy"])
        target = missed_target(dataset, row["model"], row["epochs"], accuracy)
        if target is not None:
            sentences.append(
                f"{row['model']}: test accuracy {percent(accuracy)} misses the target of "
                f"{percent(target)} for {dataset} after {row['epochs']} epochs"
            )
    return sentences
