"""`params.yaml` as typed, complete and locked objects.

Every stage calls `load_params` first: an unknown or missing key, a wrong type or a value out
of range ends the stage in one line. A new model adds its section's class here.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stages.files import StageError

PARAMS_FILE = Path("params.yaml")
DATASETS = ("mnist", "fashion_mnist", "digits")
MAX_SIZE = 2**16  # bytes of the file; the committed one has 4,300
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def _number(value: Any) -> Any:
    """Read `1e-05`, which DVC writes and YAML 1.1 takes for text, as the number it is."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _dataset(value: str) -> str:
    if value not in DATASETS and not value.endswith(".npz"):
        raise ValueError(f"it should be {', '.join(DATASETS)} or the path of an .npz file")
    return value


Float = Annotated[float, BeforeValidator(_number)]
NonNegative = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
Inside = Annotated[Float, Field(gt=0, lt=1)]
Limited = Annotated[int, Field(ge=0, le=10**6)]  # more is a slip, and overflows further on
Count = Annotated[Limited, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Counts = Annotated[list[Count], Field(min_length=1)]


class Section(BaseModel):
    """A mapping without defaults: all keys must be there, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Prepare(Section):
    """How the training set is split."""

    val_fraction: Inside
    split_seed: Seed


class Train(Section):
    """What the trainings of all models share."""

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
    """What each model sets for itself, so that none is judged on another's recipe."""

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
    """Knobs of the convolution blocks."""

    filters: Counts
    kernel_size: Count
    padding: Literal["valid", "same"]
    batch_norm: bool
    batch_norm_momentum: Inside


class Recurrent(Section):
    """Knobs of the LSTM layers."""

    units: Counts
    bidirectional: bool


class Cnn(Convolutional, Model):
    """The section `cnn`."""


class Lstm(Recurrent, Model):
    """The section `lstm`."""


class Hybrid(Convolutional, Recurrent, Model):
    """The section `hybrid`."""


class Params(Section):
    """The whole of `params.yaml`."""

    dataset: Annotated[str, AfterValidator(_dataset)]
    epochs: Count
    seed: Seed
    prepare: Prepare
    train: Train
    cnn: Cnn
    lstm: Lstm
    hybrid: Hybrid


MODELS = tuple(
    name for name, field in Params.model_fields.items() if issubclass(field.annotation, Model)
)
ENSEMBLE = "ensemble"  # the mean of the models' probabilities, in the figures beside them


def _one_line(error: ValidationError) -> str:
    """Say the first thing wrong in `error`: the key, its value and what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    others = error.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        section = Params
        for part in first["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"unknown key {key!r}; allowed here: {', '.join(section.model_fields)}{more}"
    if first["type"] == "missing":
        return f"key {key!r} is missing{more}"
    reason = first["msg"].removeprefix("Value error, ")
    if reason.startswith(("Input should", "List should")):
        reason = f"it {reason.split(' ', 1)[1]}"
    return f"{key} is {_shown(first['input'])}; {reason}{more}"


def _shown(value: Any) -> str:
    """Return a value as it would be typed, cut short where it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number too long to show"


def parse_params(document: Any) -> Params:
    """Check a parsed YAML document and return it typed.

    Raises
    ------
    StageError
        In one line: the key, its value and what is allowed.
    """
    if not isinstance(document, dict):
        raise StageError(f"{PARAMS_FILE} should be a mapping, not {type(document).__name__}")
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        raise StageError(f"{PARAMS_FILE}: {_one_line(error)}") from None


class _Loader(yaml.SafeLoader):
    """Plain YAML, less what makes a small text a large document, or hides a value behind another:
    an alias may stand for a single value only, and a key may be there once only.
    """

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("an alias (*) may stand for a single value only")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError(f"a key is there twice, {node.start_mark}")
        return mapping


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`; StageError says in one line what is wrong with it."""
    return parse_params(read_yaml(path, "run stages from the repository's root"))


def read_yaml(path: Path, hint: str = "") -> Any:
    """Read a small YAML file.

    Raises
    ------
    StageError
        It is missing (then `hint` says what to do), too large to be what it should be, not YAML,
        or has a key twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise StageError(f"{path} is missing{hint and f'; {hint}'}") from None
    if len(content) > MAX_SIZE:
        raise StageError(f"{path} has more than {MAX_SIZE} bytes; what is it?")
    try:
        return yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506 -- a SafeLoader
    except Exception as error:  # PyYAML raises whatever its constructors raise on `!!int ""`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StageError(f"{path} is not YAML: {reason}") from None
