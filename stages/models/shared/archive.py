"""Save and load model files. Equal models give equal bytes; loading never runs code."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from stages.common.cli import StageError, one_line
from stages.common.files import replacing
from stages.models.shared.safety import check_archive

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date in a ZIP archive


def save_model(model: keras.Model, path: Path) -> None:
    """Save `model` in Keras's format, with equal bytes for equal models.

    Keras stores the current time, and memory addresses as `shared_object_id`s. This function
    replaces them by a fixed date and by counters.
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
    """Replace each `shared_object_id` by a counter, in the order of first occurrence."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(item, len(numbers) + 1)
            if key == "shared_object_id" and isinstance(item, int)
            else _numbered(item, numbers)
            for key, item in value.items()
        }
    return [_numbered(item, numbers) for item in value] if isinstance(value, list) else value


def load_model(path: Path) -> keras.Model:
    """Load a model file. Files with lambdas or custom code are refused.

    Raises
    ------
    StageError
        The file is missing or damaged, or contains more than a plain model.
    """
    if not path.exists():
        raise StageError(f"{path} is missing; run `dvc repro` to train it")
    try:
        with warnings.catch_warnings(action="ignore"):
            check_archive(path)
            return keras.models.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras raises many types on a damaged file
        raise StageError(
            f"{path} is damaged or not a plain Keras model ({one_line(error)[:200]})"
        ) from None
