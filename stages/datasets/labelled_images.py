"""The common form of every dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLIT_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """Images `x`, uint8 (n, height, width, channels), and labels `y`, int32 (n,), from 0."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
