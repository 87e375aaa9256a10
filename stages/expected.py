"""What a result is held to: published figures, and the floors that a run must reach.

Both are data, `studies/published.yaml` and `studies/floors.yaml`; a result is a row of
`stages.results.collect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from stages.files import StageError
from stages.params import Count, Section, read_yaml

PUBLISHED = Path("studies/published.yaml")
FLOORS = Path("studies/floors.yaml")

Proportion = Annotated[float, Field(gt=0, le=1)]


class Floor(Section):
    """The least test accuracy of a model after so many epochs."""

    dataset: str
    model: str
    epochs: Count
    accuracy: Proportion


class Published(Section):
    """A test result that somebody published."""

    dataset: str
    model: str
    epochs: Count | None
    accuracy: Proportion
    loss: Annotated[float, Field(gt=0)] | None
    source: str
    note: str | None


def read_entries(path: Path, kind: type[Section]) -> list[Any]:
    """Read a YAML list of entries of one kind; StageError says what is wrong with which."""
    entries = read_yaml(path, "it is part of the repository")
    try:
        return TypeAdapter(list[kind]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StageError(f"{path}: entry {where}: {first['msg']}") from None


def published(dataset: str, epochs: Sequence[int]) -> list[Published]:
    """Return what was published for a data set after so many epochs, or unstated ones."""
    return [
        entry
        for entry in read_entries(PUBLISHED, Published)
        if entry.dataset == dataset and (entry.epochs is None or entry.epochs in epochs)
    ]


def floors(dataset: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the floor of each model in `rows` that has one for its data set and epochs."""
    known = {
        (entry.dataset, entry.model, str(entry.epochs)): entry.accuracy
        for entry in read_entries(FLOORS, Floor)
    }
    wanted = {row["model"]: (dataset, row["model"], str(row["epochs"])) for row in rows}
    return {model: known[key] for model, key in wanted.items() if key in known}


def missed(dataset: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each result below its floor."""
    least = floors(dataset, rows)
    return [
        f"{row['model']}: test accuracy {float(row['test_accuracy']):.2%} misses the floor of "
        f"{least[row['model']]:.2%} for {dataset} after {row['epochs']} epochs"
        for row in rows
        if row["model"] in least and float(row["test_accuracy"]) < least[row["model"]]
    ]
