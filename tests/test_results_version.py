"""A change of training results needs a new RESULTS_VERSION, because recorded trials are reused."""

from __future__ import annotations

import numpy as np
import pytest

from stages.common.arrays import Arrays
from stages.common.params import parse_params
from stages.training.session import train_model

CHANGED = (
    "training gives other results than before. If the change is on purpose, raise RESULTS_VERSION "
    "in studies/engine/trial.py and record the new losses in this file"
)
TOLERANCE = 1e-3  # relative; without AVX-512 the losses differ by less than 1e-6
SHARED = {
    "dense": 16, "dropout": 0.3, "learning_rate": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0,
    "shift": 0, "rotation": 0.0, "zoom": 0.0, "flip": False,
}  # fmt: skip
BLOCKS = {"filters": [8, 12], "kernel_size": 3, "padding": "valid", "batch_norm": True,
          "batch_norm_momentum": 0.9}  # fmt: skip
PARAMS = {
    "dataset": "generated.npz", "epochs": 4, "seed": 1,
    "prepare": {"val_fraction": 0.1, "split_seed": 1},
    "train": {"batch_size": 256, "optimizer": "adam", "momentum": 0.9, "schedule": "one_cycle",
              "warmup": 0.25, "clip_norm": 0.0, "precision": "float32", "early_stopping": 0,
              "threads": 2},
    "cnn": SHARED | BLOCKS | {"shift": 2},
    "lstm": SHARED | {"units": [16, 12], "bidirectional": True, "rotation": 20.0, "zoom": 0.1,
                      "weight_decay": 0.1},
    "hybrid": SHARED | BLOCKS | {"units": [16], "bidirectional": False, "learning_rate": 0.001},
}  # fmt: skip
# settings, and the losses on training and validation images after each epoch of 5 steps
RECORDED = {
    "cnn": ({}, [1.745756, 1.341931, 0.813182, 0.970748, 0.444892, 0.480493, 0.373924, 0.259072]),
    "lstm": (
        {"optimizer": "adamw"},
        [1.392840, 1.318904, 1.219099, 0.905966, 0.897908, 0.724317, 0.835854, 0.703968],
    ),
    "hybrid": (
        {"optimizer": "rmsprop", "schedule": "cosine"},
        [1.382967, 1.386918, 1.324668, 1.378999, 1.287079, 1.357195, 1.272289, 1.318358],
    ),
}


def generated(n: int, seed: int) -> Arrays:
    """Return noisy images of 16 × 16 pixels whose class, of 4, is the quadrant that is bright."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n, dtype=np.int32)
    x = random.integers(0, 128, (n, 16, 16, 1), dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 60
    return Arrays(x, y)


def losses(name: str) -> list[float]:
    """Train for 20 steps and return the losses in the order of `RECORDED`."""
    train = PARAMS["train"] | RECORDED[name][0]
    data = generated(1250, seed=1), generated(250, seed=2)
    training = train_model(name, parse_params(PARAMS | {"train": train}), *data, 4)
    return [loss for row in training.history for loss in (row["loss"], row["val_loss"])]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", RECORDED)
def test_20_steps_give_the_recorded_losses(name):
    assert losses(name) == pytest.approx(RECORDED[name][1], rel=TOLERANCE), CHANGED
