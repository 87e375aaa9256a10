"""Compute class probabilities, accuracy and loss of a trained model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from stages.common.arrays import Arrays

if TYPE_CHECKING:
    import keras

EPSILON = 1e-7  # keras.config.epsilon(), without importing Keras
PREDICTION_BATCH = 250  # images per step


def predict(model: keras.Model, x: np.ndarray, workers: int = 1) -> np.ndarray:
    """Return class probabilities, float32 (n, classes), for images `x`.

    `workers` batches run at the same time. The results do not depend on their number.
    """

    def probabilities(start: int) -> np.ndarray:
        return np.asarray(model.predict_on_batch(x[start : start + PREDICTION_BATCH]))

    starts = range(0, len(x), PREDICTION_BATCH)
    first = [probabilities(start) for start in starts[:1]]  # builds the graph in one thread
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(first + list(pool.map(probabilities, starts[1:])))


def score(model: keras.Model, data: Arrays, workers: int = 1) -> dict[str, float]:
    """Return accuracy (a fraction) and mean cross-entropy (nats) of a model on `data`."""
    probabilities = predict(model, data.x, workers)
    right = probabilities.argmax(axis=1) == data.y
    return {"accuracy": float(right.mean()), "loss": cross_entropy(data.y, probabilities)}


def cross_entropy(y_true: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean cross-entropy in nats of labels (n,) and probabilities (n, classes).

    Probabilities below Keras's epsilon count as epsilon, as in Keras's own loss.
    """
    likelihood = probabilities[np.arange(len(y_true)), y_true].astype(np.float64)
    return float(-np.log(np.maximum(likelihood, EPSILON)).mean())
