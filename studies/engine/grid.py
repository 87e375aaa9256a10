"""A study's YAML file, and the trials that it stands for.

    description: what the study asks
    evaluate: test              # or val: a search, which never sees the test set
    base: {train.batch_size: 128}
    variants:                   # named alternatives; each is crossed with the grid
      plain: {train.schedule: constant, cnn.learning_rate: 0.001}
      ours: {}
    when:                       # settings for a part of the grid
      - {dataset: fashion_mnist, variant: ours, set: {cnn.shift: 1}}
    grid:                       # or a list of grids, whose trials are put together
      dataset: [mnist, fashion_mnist]
      model: [cnn, lstm]
      epochs: [10, 20]
      seed: [1, 2, 3]
      train.batch_size: [128, 256]
    cpus: 1                     # a trial's, and its threads

All keys are those of `params.yaml`, dotted or nested, and `model`. What is not set is as in
`params.yaml`. Of two settings of one key the later in the order base, variants, when, grid holds;
what a rule of `when` asks for, it asks of all of these but other rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from stages.common.cli import StageError
from stages.common.overrides import flatten, with_overrides
from stages.common.params import Count, Model, Params, Section, parse_params, read_yaml
from stages.reporting.targets import Published

Settings = Annotated[dict[str, Any], BeforeValidator(flatten)]
Values = Annotated[list[Any], Field(min_length=1)]
NAMED = ("variant", "dataset", "model", "epochs", "seed")  # the first columns of every result


class Architecture(Section):
    """A published model: its layers, the parameters that those have, and what was `stated`."""

    layers: list[str]
    parameters: Count
    stated: str | None


class Study(Section):
    """A study's file; what may be left out has its default here."""

    description: str
    evaluate: Literal["test", "val"]
    grid: Annotated[
        list[Annotated[dict[str, Values], BeforeValidator(flatten)]],
        BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
        Field(min_length=1),
    ]
    base: Settings = Field(default_factory=dict)
    variants: Annotated[dict[str, Settings], Field(min_length=1)] = Field(
        default_factory=lambda: {"": {}}
    )
    when: list[dict[str, Any]] = Field(default_factory=list)
    published: list[Published] | None = None  # None: what studies/published.yaml has
    architectures: dict[str, Architecture] = Field(default_factory=dict)
    cpus: Count = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Trial:
    """One run: a model, its parameters, and the settings by which it differs from `params.yaml`.

    `cell` are the values of the study's keys without the seed: trials of one cell differ in it
    alone.
    """

    params: Params
    model: str
    settings: dict[str, Any]
    cell: dict[str, Any]

    @property
    def section(self) -> Model:
        return self.params.models[self.model]


def read_study(path: Path) -> Study:
    """Read and check a study's file."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise StageError(f"{path} should be a mapping, not {type(document).__name__}")
    try:
        study = Study.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StageError(f"{path}: {where}: {first['msg'].lower()}") from None
    for i, grid in enumerate(study.grid):
        for key in ("model", "seed"):
            if key not in grid:
                raise StageError(f"{path}: grid {i + 1} has no {key!r}")
    for rule in study.when:
        if not isinstance(rule.get("set"), dict):
            raise StageError(f"{path}: when: each rule needs `set: {{key: value}}`, not {rule}")
    if "" in study.variants and len(study.variants) > 1:
        raise StageError(f"{path}: variants: one of several has no name")
    return study


def trials(study: Study, document: Mapping[str, Any], cpus: int) -> list[Trial]:
    """Return every trial of a study, in the order of its grids; one that two have, once.

    Parameters
    ----------
    document
        `params.yaml` as parsed YAML: what the study does not set.
    cpus
        What `train.threads` is where the study does not set it.

    Raises
    ------
    StageError
        A key or a value is not one of `params.yaml`'s, or a rule of `when` never applies.
    """
    found: dict[tuple[str, int], Trial] = {}
    used: set[int] = set()
    for variant, own in study.variants.items():
        for grid in study.grid:
            for values in product(*grid.values()):
                point = dict(zip(grid, values, strict=True))
                rules = _rules(study, document, {**own, **point, "variant": variant})
                used |= set(rules)
                trial = _trial(study, document, cpus, variant, own | _set(study, rules), point)
                found.setdefault((place_of(trial.cell), trial.params.seed), trial)
    for i, rule in enumerate(study.when):
        if i not in used:
            raise StageError(f"when: no trial of the grid meets {_condition(rule)}")
    return list(found.values())


def place_of(cell: Mapping[str, Any]) -> str:
    """Return a text that cells share whose keys have equal values, in whatever order."""
    return repr(sorted(cell.items(), key=itemgetter(0)))


def _rules(study: Study, document: Mapping[str, Any], own: Mapping[str, Any]) -> list[int]:
    """Return which rules of `when` apply to a point of the grid, by index."""
    place = flatten(document) | study.base | own
    chosen = []
    for i, rule in enumerate(study.when):
        condition = _condition(rule)
        if unknown := condition.keys() - place.keys():
            raise StageError(f"when: {min(unknown)} is not a key of params.yaml or of the grid")
        if all(_matches(place[key], value) for key, value in condition.items()):
            chosen.append(i)
    return chosen


def _condition(rule: Mapping[str, Any]) -> dict[str, Any]:
    return flatten({key: value for key, value in rule.items() if key != "set"})


def _set(study: Study, rules: Iterable[int]) -> dict[str, Any]:
    """Return what rules set; of two settings of one key the later holds."""
    return {key: value for i in rules for key, value in flatten(study.when[i]["set"]).items()}


def _trial(
    study: Study,
    document: Mapping[str, Any],
    cpus: int,
    variant: str,
    own: Mapping[str, Any],
    point: Mapping[str, Any],
) -> Trial:
    settings = {"train.threads": cpus} | study.base | own
    settings |= {key: value for key, value in point.items() if key != "model"}
    params = parse_params(with_overrides(document, settings))
    if point["model"] not in params.models:
        known = ", ".join(params.models)
        raise StageError(f"grid: model is {point['model']!r}; it should be one of {known}")
    if not params.train.threads:
        raise StageError("train.threads is 0, which is another number on another machine")
    cell = {"dataset": params.dataset, "model": point["model"], "epochs": params.epochs}
    cell |= {"variant": variant} if variant else {}
    cell |= {key: value for key, value in point.items() if key not in NAMED}
    return Trial(params, point["model"], settings, cell)


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def changed_settings(trial: Trial, committed: Params) -> Iterator[tuple[str, Any]]:
    """Yield the parameters of a trial, with dotted keys, that differ from the committed ones.

    Those of other models do not take part.
    """
    before, now = flatten(committed.model_dump()), flatten(trial.params.model_dump())
    for key, value in now.items():
        if value != before[key] and concerns(trial, key):
            yield key, value


def concerns(trial: Trial, key: str) -> bool:
    """Return whether a dotted parameter belongs to the trial's model or to all models."""
    section = key.split(".")[0]
    return section not in trial.params.models or section == trial.model
