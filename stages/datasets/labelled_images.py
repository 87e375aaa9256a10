"""The classes `Dataset`, which every loader returns, and `Source`, a user's arrays as read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLIT_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """A training set, with a validation and a test set if the source has them.

    Images `x` are uint8 (n, height, width, channels); sequences of images are uint8 (n, time,
    height, width, channels). Labels `y` are int32 (n,) and start at 0. `notes` is a list of lines
    that tell users how their own data were read.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    class_names: tuple[str, ...]
    x_val: np.ndarray | None = None
    y_val: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    own: bool = False


@dataclass
class Source:
    """A user's arrays `x_PART` and `y_PART` as they were read, before any conversion.

    `titles` has the user's name of each array, for messages. `class_names` are the names of the
    labels 0, 1, 2, … if the source has them. `channels_last` says that the last axis of the images
    is known to be the channels, `scaled` that prepare.white has been applied.
    """

    path: Path
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    class_names: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    channels_last: bool = False
    scaled: bool = False

    @property
    def parts(self) -> list[str]:
        """The parts that the source has, in the order of `PARTS`."""
        return [part for part in PARTS if f"x_{part}" in self.arrays]
