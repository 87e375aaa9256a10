"""What results are compared with: targets, results of others, and the study with equal settings.

A target is for a mean over seeds. A single run is compared with a study only if the study has
exactly its settings, because one run says little about a mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from stages.common.cli import StageError
from stages.common.files import read_json
from stages.common.params import Count, Section, read_yaml, without_added
from stages.reporting.sentences import percent

PUBLISHED = Path("studies/published.yaml")
TARGETS = Path("studies/targets.yaml")
COMPARISON = Path("studies/results/comparison.json")
SPREADS = 3  # standard deviations from the mean that still count as the range of the seeds
LEAST_IMAGES = 3  # a smaller difference is never called low

Proportion = Annotated[float, Field(gt=0, le=1)]


class Target(Section):
    """A target for a model's mean test accuracy over seeds, after `epochs` epochs."""

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

    @property
    def title(self) -> str:
        """The model, the source of the result and the note, in one string."""
        note = f" ({self.note})" if self.note else ""
        return f"reported: {self.model}, {self.source}{note}"


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
    """Return what others reported for a dataset and these, or unstated, numbers of epochs."""
    return [
        entry
        for entry in read_entries(PUBLISHED, Published)
        if entry.dataset == dataset and (entry.epochs is None or entry.epochs in epochs)
    ]


def target_of(dataset: str, model: str, epochs: int) -> float | None:
    """Return the target for a model's mean test accuracy, or None if there is none."""
    for entry in read_entries(TARGETS, Target):
        if (entry.dataset, entry.model, entry.epochs) == (dataset, model, epochs):
            return entry.accuracy
    return None


def missed_target(dataset: str, model: str, epochs: int, accuracy: float) -> float | None:
    """Return the target that a mean test accuracy misses, or None if it misses none."""
    target = target_of(dataset, model, epochs)
    if target is None or round(accuracy, 9) >= target:  # a mean has rounding errors
        return None
    return target


def settings_digest(model: str, params: Mapping[str, Any]) -> str:
    """Return a digest of the parameters that determine a model's accuracy, except for the seed."""
    train = without_added("train", params)
    train.pop("threads")
    sections = [without_added(name, params) for name in ("prepare", model)]
    kept = [train, params["dataset"], sections[0], params["epochs"], sections[1]]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def study_of(
    model: str, params: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the cell of the comparison with a run's settings, libraries and code, or None.

    Parameters
    ----------
    params
        All parameters of the run.
    versions
        What `versions.versions` returned in the run. Other names do not count.

    Returns
    -------
    dict
        ``accuracy_mean, accuracy_std`` (fractions, over seeds) and ``n``, at least 2, among others.
    """
    if model not in params:  # the ensemble
        return None
    digest = settings_digest(model, params)
    for cell in read_json(COMPARISON):
        if (cell["settings"], cell["model"]) == (digest, model) and cell["n"] > 1:
            needed = cell["libraries"] | {"results_version": str(cell["results_version"])}
            return cell if needed.items() <= versions.items() else None
    return None


def is_low(accuracy: float, images: int, cell: Mapping[str, Any]) -> bool:
    """Return whether a run's test accuracy is lower than the seeds of its study explain.

    Parameters
    ----------
    images
        Size of the test set.
    cell
        As returned by `study_of`.
    """
    below = cell["accuracy_mean"] - accuracy
    return below > SPREADS * cell["accuracy_std"] and round(below * images, 6) >= LEAST_IMAGES


def against_study(model: str, accuracy: float, images: int, cell: Mapping[str, Any]) -> str:
    """Return a sentence that compares one run with its study; arguments as for `is_low`."""
    low, spread = is_low(accuracy, images, cell), cell["accuracy_std"]
    high = accuracy - cell["accuracy_mean"] > SPREADS * spread
    place = "lower than" if low else "higher than" if high else "within"
    return (
        f"{model}: {percent(accuracy)} is {place} the range of the seeds "
        f"({100 * cell['accuracy_mean']:.2f} ± {percent(spread)}, {cell['n']} seeds)"
    )
