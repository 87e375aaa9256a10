"""`params.yaml` as typed, complete and locked objects.

Every stage calls `load_params` first: an unknown or missing key, a wrong type or a value out of
range ends the stage with one line. The section of a model is the class `Section` in its own file,
`stages/models/NAME.py`, built from the groups of keys below.
"""

from __future__ import annotations

import functools
import importlib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from ruamel.yaml import YAML

from stages.common.cli import StageError, one_line
from stages.common.overrides import flatten

PARAMS_FILE = Path("params.yaml")
RECIPES = Path("recipes")
DATASETS = ("mnist", "fashion_mnist", "digits", "digit_sequences")
MODELS_FOLDER = Path(__file__).parents[1] / "models"
ENSEMBLE = "ensemble"  # the mean of the models' probabilities; reported next to the models
MAX_SIZE = 2**16  # bytes of a YAML file; the committed params.yaml has 4,300
OWN = {"batch_size": 0, "warmup": 0.0}  # 0: the model uses the value of the section `train`
# Parameters that were added after trials had been recorded, with the values that train as before.
ADDED = {
    "prepare": {
        "test_fraction": 0.2,
        "train_images": 0,
        "image_size": 0,
        "transpose": False,
        "channels": "auto",
        "white": 0,
        "label_column": "auto",
        "skip_damaged": False,
    },
    "train": {"class_weight": "none"},
    "evaluate": {"corruptions": True},
    "cnn": OWN | {"frames": "mean", "head": "flatten"},
    "lstm": OWN | {"cell": "lstm", "read": "rows", "pool": "last"},
    "hybrid": OWN | {"head": "flatten", "kind": "rows", "cell": "lstm", "pool": "last"},
}
UNDO = "fix it, or undo all changes of the file with `git checkout params.yaml`"


def _whole(value: Any) -> Any:
    """Read `2.0` as the whole number 2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(value: Any) -> Any:
    """Read a name in upper or lower case, with `-` or `_`: `Adam`, `One-Cycle`."""
    return value.lower().replace("-", "_") if isinstance(value, str) else value


def _dataset(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if _name(value) in DATASETS:
        return _name(value)
    if not {"/", "."} & set(value):  # most likely a typing error
        raise ValueError(f"it should be {', '.join(DATASETS)} or a path such as data/raw/my.npz")
    return value


def _list(value: Any) -> Any:
    """Read a single number as a list of one."""
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


NonNegative = Annotated[float, Field(ge=0, examples=[0.1])]
Fraction = Annotated[float, Field(ge=0, lt=1, examples=[0.3])]
Inside = Annotated[float, Field(gt=0, lt=1, examples=[0.1])]
Positive = Annotated[float, Field(gt=0, examples=[0.001])]
Degrees = Annotated[float, Field(ge=0, le=180, examples=[10.0])]
Whole = Annotated[int, BeforeValidator(_whole)]
Limited = Annotated[Whole, Field(ge=0, le=10**6, examples=[2])]  # larger values are typing errors
Count = Annotated[Whole, Field(ge=1, le=10**6, examples=[10])]
Seed = Annotated[Whole, Field(ge=0, lt=2**31, examples=[1])]
Counts = Annotated[list[Count], BeforeValidator(_list), Field(min_length=1, examples=["[32,64]"])]
Flag = Annotated[bool, Field(examples=["true"])]
Name = BeforeValidator(_name)


class Section(BaseModel):
    """A mapping without defaults: all of its keys are required, and no others are allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Prepare(Section):
    """The section `prepare`: how the data are split, and how a user's own data are read."""

    val_fraction: Inside
    split_seed: Seed
    test_fraction: Inside
    train_images: Limited
    image_size: Annotated[Whole, Field(ge=0, le=4096, examples=[28])]
    transpose: Flag
    channels: Annotated[Literal["auto", "first", "last"], Name]
    white: Annotated[Whole, Field(ge=0, le=65535, examples=[255])]
    label_column: Annotated[Literal["auto", "first", "last"], Name]
    skip_damaged: Flag


class Train(Section):
    """The section `train`: settings shared by all models."""

    batch_size: Count
    optimizer: Annotated[Literal["adam", "adamw", "rmsprop", "sgd"], Name]
    momentum: Fraction
    schedule: Annotated[Literal["constant", "cosine", "one_cycle"], Name]
    warmup: Inside
    clip_norm: NonNegative
    precision: Annotated[Literal["float32", "mixed_bfloat16"], Name]
    early_stopping: Limited
    class_weight: Annotated[Literal["none", "balanced"], Name]
    threads: Limited

    def own(self, section: Model) -> Train:
        """Return these settings with those that a model's section replaces."""
        values = {key: getattr(section, key) for key in OWN}
        return self.model_copy(update={key: value for key, value in values.items() if value})


class Evaluate(Section):
    """The section `evaluate`."""

    corruptions: Flag


class Model(Section):
    """Keys of every model: its output layers, and its own training recipe."""

    dense: Limited
    batch_size: Limited
    warmup: Fraction
    dropout: Fraction
    learning_rate: Positive
    weight_decay: NonNegative
    label_smoothing: Fraction
    shift: Limited
    rotation: Degrees
    zoom: Fraction
    flip: Flag


class Convolutional(Section):
    """The settings of a model's convolution blocks."""

    filters: Counts
    kernel_size: Count
    padding: Annotated[Literal["valid", "same"], Name]
    batch_norm: Flag
    batch_norm_momentum: Inside
    head: Annotated[Literal["flatten", "average"], Name]


class Recurrent(Section):
    """Keys of the recurrent layers."""

    cell: Annotated[Literal["lstm", "gru", "rnn"], Name]
    units: Counts
    bidirectional: Flag
    pool: Annotated[Literal["last", "mean"], Name]


class Params(Section):
    """All of `params.yaml`. `params_class` adds one section per model."""

    dataset: Annotated[str, BeforeValidator(_dataset), Field(examples=["mnist"])]
    epochs: Count
    seed: Seed
    prepare: Prepare
    train: Train
    evaluate: Evaluate

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
    if reason.startswith(("Input should", "List should", "Value should")):
        reason = f"it {reason.split(' ', 1)[1].removesuffix(' after validation, not 0')}"
    if first["type"] == "model_type":
        reason = "it should be a section with settings of its own"
    example = _example(kind, first["loc"])
    return f"{key} is {_shortened(first['input'])}; {reason}{example}{more}"


def _example(kind: type[Section], location: tuple[str | int, ...]) -> str:
    """Return `, for example KEY=VALUE` for the parameter at `location`, if it has an example.

    For a whole section, the example is its first parameter that has one.
    """
    section, keys = kind, []
    for part in location:
        field = section.model_fields[part]
        keys.append(part)
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            break
    else:
        fields = section.model_fields.items()
        key, field = next(pair for pair in fields if pair[1].examples)
        keys.append(key)
    examples = field.examples
    return f", for example {'.'.join(keys)}={examples[0]}" if examples else ""


def _shortened(value: Any) -> str:
    """Return a value as typed, shortened if it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print numbers with thousands of digits
        return "a number too long to show"


def with_added(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded parameters with those that were added later, if they lack them."""
    sections = {
        name: added | recorded.get(name, {})
        for name, added in ADDED.items()
        if name in recorded
        or name not in model_names()  # a trial has the section of its model only
    }
    return {**recorded, **sections}


def without_added(section: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section of the parameters without those of `ADDED` that have the value there."""
    added = ADDED.get(section, {}).items()
    return {key: value for key, value in params[section].items() if (key, value) not in added}


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`. Any problem raises StageError with one line."""
    document = read_yaml(path, "run this command in the repository's root folder")
    try:
        return parse_params(document)
    except StageError as error:
        raise StageError(f"{error}; {UNDO}") from None


def recipe(dataset: str) -> dict[str, Any]:
    """Return the dotted settings of a dataset: its name or path, and its recipe's settings."""
    name = dataset.lower().replace("-", "_")
    if name not in DATASETS:
        return {"dataset": dataset}
    path = RECIPES / f"{name}.yaml"
    return {"dataset": name} | (flatten(read_yaml(path)) if path.exists() else {})


def read_yaml(path: Path, hint: str = "") -> Any:
    """Read a small YAML file as DVC does (YAML 1.2): `010` is 10, `yes` is text, `1e-05` a number.

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
    return parse_yaml(content, path)


def parse_yaml(content: bytes, path: Path) -> Any:
    """Return the value in the content of a YAML file; `path` is its name in messages."""
    if len(content) > MAX_SIZE:
        raise StageError(f"{path} is larger than {MAX_SIZE // 1024} KiB, too large for settings")
    try:
        return YAML(typ="safe", pure=True).load(content.decode("utf-8"))
    except Exception as error:  # its constructors raise many types, e.g. on `!!int ""`
        mark = getattr(error, "problem_mark", None)
        reason = f"{error.problem} (line {mark.line + 1})" if mark else one_line(error)
        raise StageError(f"{path} is not YAML: {reason}") from None
