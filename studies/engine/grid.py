"""Read a study file and list its trials.

    description: what the study asks
    evaluate: test              # or val: a search, which never sees the test set
    recipes: true               # start from recipes/DATASET.yaml
    base: {train.batch_size: 128}
    variants:                   # named alternatives; each is crossed with the grid
      plain: {train.schedule: constant, cnn.learning_rate: 0.001}
      ours: {}
    when:                       # settings for a part of the grid
      - {dataset: fashion_mnist, variant: ours, set: {cnn.shift: 1}}
    grid:                       # or a list of grids, whose trials are joined
      dataset: [mnist, fashion_mnist]
      model: [cnn, lstm]
      epochs: [10, 20]
      seed: [1, 2, 3]
      train.batch_size: [128, 256]
    cpus: 1                     # cores and threads per trial

All keys are those of `params.yaml`, dotted or nested, and `model`. Keys that the study does not set
have their value from `params.yaml`. Precedence, lowest to highest: recipe, base, variants, when,
grid. A `when` condition sees base, variant and grid values, not other rules' settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from stages.common.cli import StageError
from stages.common.overrides import flatten, with_overrides
from stages.common.params import Count, Model, Params, Section, parse_params, read_yaml, recipe
from stages.reporting.targets import Published

Settings = Annotated[dict[str, Any], BeforeValidator(flatten)]
Values = Annotated[list[Any], Field(min_length=1)]
NAMED = ("variant", "dataset", "model", "epochs", "seed")  # the other keys follow these in results


class Architecture(Section):
    """A published model: its layers, their number of parameters, and the number it stated."""

    layers: list[str]
    parameters: Count
    stated: str | None


class Study(Section):
    """A study file. Keys that it may leave out have a default here."""

    description: str
    evaluate: Literal["test", "val"]
    grid: Annotated[
        list[Annotated[dict[str, Values], BeforeValidator(flatten)]],
        BeforeValidator(lambda value: [value] if isinstance(value, dict) else value),
        Field(min_length=1),
    ]
    recipes: bool = False
    base: Settings = Field(default_factory=dict)
    variants: Annotated[dict[str, Settings], Field(min_length=1)] = Field(
        default_factory=lambda: {"": {}}
    )
    when: list[dict[str, Any]] = Field(default_factory=list)
    published: list[Published] | None = None  # None: the entries of studies/published.yaml
    architectures: dict[str, Architecture] = Field(default_factory=dict)
    cpus: Count = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class Trial:
    """One training: a model, all parameters, and the `settings` that the study makes.

    `cell` has the study's keys and values without the seed. Trials with equal cells are one
    configuration: they differ in the seed only.
    """

    params: Params
    model: str
    settings: dict[str, Any]
    cell: dict[str, Any]

    @property
    def section(self) -> Model:
        return self.params.models[self.model]


def read_study(path: Path) -> Study:
    """Read and check a study file. Any problem raises StageError with one line."""
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
        if lacking := {"model", "seed"} - grid.keys():
            raise StageError(f"{path}: grid {i + 1} has no {min(lacking)!r}")
    for rule in study.when:
        if not isinstance(rule.get("set"), dict):
            raise StageError(f"{path}: when: each rule needs `set: {{key: value}}`, not {rule}")
    if "" in study.variants and len(study.variants) > 1:
        raise StageError(f"{path}: variants: each of several variants needs a name")
    return study


def trials(study: Study, document: Mapping[str, Any], cpus: int) -> list[Trial]:
    """Return the trials of a study in the order of its grids, each once.

    `document` is the parsed `params.yaml`, for keys that the study does not set; `cpus` is the
    default of `train.threads`. A key or value that `params.yaml` would not allow, or a `when` rule
    that never applies, raises StageError.
    """
    rules = [
        (flatten({key: rule[key] for key in rule if key != "set"}), flatten(rule["set"]))
        for rule in study.when
    ]
    defaults = flatten(document) | study.base
    found: dict[tuple[str, int], Trial] = {}
    used: set[int] = set()
    for variant, own in study.variants.items():
        for grid in study.grid:
            for values in product(*grid.values()):
                point = dict(zip(grid, values, strict=True))
                place = defaults | own | point | {"variant": variant}
                usual = recipe(place["dataset"]) if study.recipes else {}
                settings = {"train.threads": cpus} | usual | study.base | own
                for i, (condition, setting) in enumerate(rules):
                    if _holds(condition, place):
                        used.add(i)
                        settings |= setting
                trial = _trial(document, settings, point, variant)
                found.setdefault((cell_text(trial.cell), trial.params.seed), trial)
    for i, (condition, _) in enumerate(rules):
        if i not in used:
            raise StageError(f"when: no trial of the grid meets {condition}")
    return list(found.values())


def _holds(condition: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    """Return whether a point of the grid meets the condition of a `when` rule."""
    if unknown := condition.keys() - place.keys():
        raise StageError(f"when: {min(unknown)} is not a key of params.yaml or of the grid")
    return all(
        place[key] in wanted if isinstance(wanted, list) else place[key] == wanted
        for key, wanted in condition.items()
    )


def _trial(
    document: Mapping[str, Any], settings: dict[str, Any], point: Mapping[str, Any], variant: str
) -> Trial:
    """Return the trial at one point of a grid."""
    model = point["model"]
    settings |= {key: value for key, value in point.items() if key != "model"}
    params = parse_params(with_overrides(document, settings))
    if model not in params.models:
        known = ", ".join(params.models)
        raise StageError(f"grid: model is {model!r}; it should be one of {known}")
    if not params.train.threads:
        raise StageError(
            "studies need a fixed train.threads (1 or more): 0 means all cores, and their number "
            "differs between machines"
        )
    cell = {"dataset": params.dataset, "model": model, "epochs": params.epochs}
    cell |= {"variant": variant} if variant else {}
    cell |= {key: value for key, value in point.items() if key not in NAMED}
    return Trial(params, model, settings, cell)


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal cells, whatever the order of their keys."""
    return repr(sorted(cell.items(), key=itemgetter(0)))


def changed_settings(trial: Trial, committed: Params) -> Iterator[tuple[str, Any]]:
    """Yield the trial's parameters that differ from `committed`, as dotted keys and values.

    Sections of other models are left out.
    """
    before, now = flatten(committed.model_dump()), flatten(trial.params.model_dump())
    for key, value in now.items():
        if value != before[key] and concerns(trial, key):
            yield key, value


def concerns(trial: Trial, key: str) -> bool:
    """Return whether a dotted parameter belongs to the trial's model or to all models."""
    section = key.split(".")[0]
    return section not in trial.params.models or section == trial.model
