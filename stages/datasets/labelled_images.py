"""The class `Dataset`, which every loader returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLIT_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """A training and a test set.

    Images `x` are uint8 (n, height, width, channels), sequences (n, time, height, width, channels).
    Labels `y` are int32 (n,), from 0.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
