"""Shuffled and augmented batches for training, and batches in order for validation."""

from __future__ import annotations

import math

import keras
import numpy as np

from stages.common.arrays import Arrays
from stages.common.params import Model
from stages.training.augmentation import augments, transforms

RELEASE = 16  # steps between releases of the data file's pages from memory


class Epochs(keras.utils.PyDataset):
    """The shuffled batches of an epoch, with the affine maps that augment them.

    `start` chooses the epoch. Order and maps are functions of (seed, epoch), so an epoch is the
    same after a resume. Within a batch, images are sorted by their position in the file, which
    makes reading faster. With `weights`, float32 (n,), batches also hold the images' weights in
    the loss.
    """

    def __init__(
        self,
        data: Arrays,
        batch_size: int,
        section: Model,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        super().__init__()
        self.weights = weights
        self.data, self.batch_size, self.section, self.seed = data, batch_size, section, seed
        self.start(1)

    def start(self, epoch: int) -> None:
        """Let the batches be those of an epoch, counted from 1."""
        self.epoch = epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data.y))

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[dict[str, np.ndarray], *tuple[np.ndarray, ...]]:
        chosen = np.sort(self.order[step * self.batch_size : (step + 1) * self.batch_size])
        inputs = {"image": self.data.x[chosen]}
        if augments(self.section):
            random = np.random.default_rng((self.seed, self.epoch, step))
            height, width = inputs["image"].shape[-3:-1]
            inputs["transform"] = transforms(random, len(chosen), (height, width), self.section)
        if step % RELEASE == RELEASE - 1 or step == len(self) - 1:
            self.data.release()
        y = self.data.y[chosen]
        return (inputs, y) if self.weights is None else (inputs, y, self.weights[chosen])


class InOrder(keras.utils.PyDataset):
    """Batches in the order of the data, without augmentation, for validation."""

    def __init__(self, data: Arrays, batch_size: int):
        super().__init__()
        self.data, self.batch_size = data, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.data.y) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return {"image": np.asarray(self.data.x[part])}, self.data.y[part]
