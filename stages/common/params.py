"""`params.yaml` as typed, complete and locked objects.

Every stage calls `load_params` first: an unknown or missing key, a wrong type or a value out of
range ends the stage with one line. The section of a model is the class `Section` in its own file,
`stages/models/NAME.py`, built from the groups of keys below.
"""

from __future__ import annotations

import functools
import importlib
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from stages.common.cli import StageError, one_line

PARAMS_FILE = Path("params.yaml")
DATASETS = ("mnist", "fashion_mnist", "digits")
MODELS_FOLDER = Path(__file__).parents[1] / "models"
ENSEMBLE = "ensemble"  # the mean of the models' probabilities; reported next to the models
MAX_SIZE = 2**16  # bytes of a YAML file; the committed params.yaml has 4,300
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def _number(value: Any) -> Any:
    """Convert text such as `1e-05`, which DVC writes and PyYAML reads as text, to a number."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _dataset(value: str) -> str:
    if value not in DATASETS and not value.endswith(".npz"):
        raise ValueError(f"it should be {', '.join(DATASETS)} or the path of an .npz file")
    return value


Float = Annotated[float, BeforeValidator(_number)]
NonNegative = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Inside = Annotated[Float, Field(gt=0, lt=1)]
Limited = Annotated[int, Field(ge=0, le=10**6)]  # larger values are typing errors and overflow
Count = Annotated[Limited, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Counts = Annotated[list[Count], Field(min_length=1)]


class Section(BaseModel):
    """A mapping without defaults: all of its keys are required, and no others are allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Prepare(Section):
    """The section `prepare`: how the training set is split."""

    val_fraction: Inside
    split_seed: Seed


class Train(Section):
    """The section `train`: settings shared by all models."""

    batch_size: Count
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"]
    momentum: Fraction
    schedule: Literal["constant", "cosine", "one_cycle"]
    warmup: Inside
    clip_norm: NonNegative
    precision: Literal["float32", "mixed_bfloat16"]
    early_stopping: Limited
    threads: Limited


class Model(Section):
    """Keys of every model: its output layers, and its own training recipe."""

    dense: Limited
    dropout: Fraction
    learning_rate: Annotated[Float, Field(gt=0)]
    weight_decay: NonNegative
    label_smoothing: Fraction
    shift: Limited
    rotation: Annotated[Float, Field(ge=0, le=180)]
    zoom: Fraction
    flip: bool


class Convolutional(Section):
    """Keys of the convolution blocks."""

    filters: Counts
    kernel_size: Count
    padding: Literal["valid", "same"]
    batch_norm: bool
    batch_norm_momentum: Inside


class Recurrent(Section):
    """Keys of the LSTM layers."""

    units: Counts
    bidirectional: bool


class Params(Section):
    """All of `params.yaml`. `params_class` adds one section per model."""

    dataset: Annotated[str, AfterValidator(_dataset)]
    epochs: Count
    seed: Seed
    prepare: Prepare
    train: Train

    @property
    def models(self) -> dict[str, Model]:
        """The models and their sections, in the order of `params.yaml`."""
        return {
            name: section
            for name in type(self).model_fields
            if isinstance(section := getattr(self, name), Model)
        }


def model_names() -> list[str]:
    """Return the names of the models that have a file in `stages/models/`."""
    return sorted(path.stem for path in MODELS_FOLDER.glob("[!_]*.py"))


@functools.cache
def params_class(models: tuple[str, ...]) -> type[Params]:
    """Return the class of a `params.yaml` that has a section for each of `models`."""
    modules = {name: importlib.import_module(f"stages.models.{name}") for name in models}
    fields = {name: (module.Section, ...) for name, module in modules.items()}
    return create_model("Params", __base__=Params, **fields)


def parse_params(document: Any) -> Params:
    """Check a parsed YAML document and return it as a typed object.

    Raises
    ------
    StageError
        One line with the key, its value and what is allowed.
    """
    if not isinstance(document, dict):
        raise StageError(f"{PARAMS_FILE} should be a mapping, not {type(document).__name__}")
    known = model_names()
    kind = params_class(tuple(key for key in document if key in known))
    try:
        params = kind.model_validate(document)
    except ValidationError as error:
        raise StageError(f"{PARAMS_FILE}: {_first_problem(error, kind)}") from None
    if not params.models:
        raise StageError(f"{PARAMS_FILE} has no section of a model ({', '.join(known)})")
    return params


def _first_problem(error: ValidationError, kind: type[Params]) -> str:
    """Describe the first problem in `error`: the key, its value and what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    others = error.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        section = kind
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"unknown key {key!r}; allowed here: {', '.join(section.model_fields)}{more}"
    if first["type"] == "missing":
        return f"key {key!r} is missing{more}"
    reason = first["msg"].removeprefix("Value error, ")
    if reason.startswith(("Input should", "List should")):
        reason = f"it {reason.split(' ', 1)[1]}"
    return f"{key} is {_shortened(first['input'])}; {reason}{more}"


def _shortened(value: Any) -> str:
    """Return a value as typed, shortened if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print numbers with thousands of digits
        return "a number too long to show"


class _Loader(yaml.SafeLoader):
    """Safe YAML without duplicate keys, and without aliases that expand to large documents."""

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("an alias (*) may refer to a single value only")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"a key appears twice, {node.start_mark}")
        return mapping


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`. Any problem raises StageError with one line."""
    return parse_params(read_yaml(path, "run this command in the repository's root folder"))


def read_yaml(path: Path, hint: str = "") -> Any:
    """Read a small YAML file.

    Raises
    ------
    StageError
        The file is missing (`hint` then says what to do), is larger than `MAX_SIZE`, is not YAML,
        or has a key twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise StageError(f"{path} is missing{hint and f'; {hint}'}") from None
    if len(content) > MAX_SIZE:
        raise StageError(f"{path} is larger than {MAX_SIZE // 1024} KiB, too large for settings")
    try:
        return yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506 -- a SafeLoader
    except Exception as error:  # PyYAML's constructors raise many types, e.g. on `!!int ""`
        raise StageError(f"{path} is not YAML: {one_line(error)}") from None
