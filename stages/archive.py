"""Model files: saved so that equal models give equal bytes, loaded without running their code."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from stages.archive_checks import check_archive
from stages.files import StageError, replacing

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP archive can state


def save_model(model: keras.Model, path: Path) -> None:
    """Save `model` in Keras's format, without what Keras writes of one process and moment into it:
    times of day, and memory addresses in place of names for objects that layers share.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / path.name
        model.save(saved)
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(saved) as source,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as target,
        ):
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    metadata = json.loads(content) | {"date_saved": "1980-01-01@00:00:00"}
                    content = json.dumps(metadata, sort_keys=True).encode()
                if name == "config.json":
                    content = json.dumps(_numbered(json.loads(content), {})).encode()
                target.writestr(zipfile.ZipInfo(name, EPOCH), content)


def _numbered(value: Any, numbers: dict[int, int]) -> Any:
    """Replace each `shared_object_id` by a number, from 1 in the order of first mention."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(item, len(numbers) + 1)
            if key == "shared_object_id" and isinstance(item, int)
            else _numbered(item, numbers)
            for key, item in value.items()
        }
    return [_numbered(item, numbers) for item in value] if isinstance(value, list) else value


def load_model(path: Path) -> keras.Model:
    """Load a model that `save_model` or Keras wrote; lambdas and custom code are refused.

    Raises
    ------
    StageError
        The file is missing, damaged, or would run code.
    """
    if not path.exists():
        raise StageError(f"{path} is missing; `dvc repro` trains it")
    try:
        with warnings.catch_warnings(action="ignore"):
            check_archive(path)
            return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras raises whatever its parts raise on a damaged file
        reason = " ".join(str(error).split())[:200]
        raise StageError(f"{path} is not a whole, plain Keras model ({reason})") from None
