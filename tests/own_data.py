"""Tiny datasets of a user, and the settings with which they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, tiny_arrays
from PIL import Image

from stages.common.cli import StageError
from stages.common.params import Prepare, read_yaml
from stages.datasets.labelled_images import Dataset
from stages.datasets.own_data import load_own

PREPARE = Prepare(
    **read_yaml(ROOT / "params.yaml")["prepare"]
    | {"image_size": 0, "transpose": False, "channels": "auto", "white": 0, "label_column": "auto",
       "skip_damaged": False, "train_images": 0, "val_fraction": 0.2, "test_fraction": 0.2}
)  # fmt: skip
ARRAYS = tiny_arrays()
X, Y, X_TEST, Y_TEST = (ARRAYS[key] for key in ("x_train", "y_train", "x_test", "y_test"))


def load(path: Path, **settings: Any) -> Dataset:
    return load_own(path, PREPARE.model_copy(update=settings))


def refusal(path: Path, reason: str, **settings: Any) -> None:
    """Check that a dataset is refused in one line, which names it and has the text `reason`."""
    with pytest.raises(StageError, match=re.escape(reason)) as caught:
        load(path, **settings)
    assert str(path) in str(caught.value)


def has_note(dataset: Dataset, text: str) -> bool:
    return any(text in note for note in dataset.notes)


def save_pictures(
    folder: Path,
    x: np.ndarray,
    y: np.ndarray,
    kind: str = "png",
    names: Any = "abc",
    **options: Any,
) -> Path:
    """Write images as `folder/CLASS/NUMBER.kind`."""
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        path = folder / names[label] / f"{i}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)
    return folder
