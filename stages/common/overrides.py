"""Dotted settings such as `cnn.dropout=0.5`: nested mappings, and `dvc exp run -S` lines."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML

from stages.common.cli import StageError

PLAIN = re.compile(r"[A-Za-z0-9_./-]+")  # text that needs no quotes in an override


def flatten(settings: Any, prefix: str = "") -> Any:
    """Return nested settings with dotted keys. A value that is not a mapping is returned as is."""
    if not isinstance(settings, Mapping):
        return settings
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of settings such as `epochs=30`, as `dvc exp run -S` reads them.

    Raises
    ------
    StageError
        A setting is not KEY=VALUE, or its value is not YAML.
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise StageError(f"-S {setting}: write KEY=VALUE, for example -S epochs=30")
        try:
            values[key] = YAML(typ="safe", pure=True).load(text)
        except Exception:  # its constructors raise many types, e.g. on `!!int ""`
            raise StageError(
                f"-S {setting}: the value is not valid YAML; put quotes around it if it is text"
            ) from None
    return values


def with_overrides(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `document` with dotted keys set, as `dvc exp run -S` sets them.

    Raises
    ------
    StageError
        A key does not exist in `document`.
    """
    changed = copy.deepcopy(dict(document))
    for dotted, value in overrides.items():
        *sections, key = str(dotted).split(".")
        target = changed
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not isinstance(target, dict) or key not in target:
            raise StageError(f"{dotted} is not a key of params.yaml")
        target[key] = value
    return changed


def exp_run_command(overrides: Mapping[str, Any]) -> str:
    """Return the shell command that runs an experiment with these settings, nested or dotted."""
    settings = (f"{key}={override_text(value)}" for key, value in flatten(overrides).items())
    return " ".join(["dvc exp run", *(f"-S {shlex.quote(setting)}" for setting in settings)])


def override_text(value: Any) -> str:
    """Return a value as `dvc exp run -S` reads it (Hydra's grammar), in quotes if it needs them.

    In quotes, a backslash stands for itself, except in front of a quote.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
        return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'
    return str(value).replace(" ", "")
