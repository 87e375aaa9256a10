"""Compute class probabilities, accuracy and loss of a trained model, and time it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from stages.common.arrays import Arrays

if TYPE_CHECKING:
    import keras

EPSILON = 1e-7  # keras.config.epsilon(), without importing Keras
TIMED_CALLS = {1: 15, 256: 3}  # images per call: number of calls, of which the median counts
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


def inference_seconds(
    predict_on_batch: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> dict[str, float]:
    """Return the median seconds per image in batches of 1 and 256, after one warm-up call."""
    seconds = {}
    for batch, calls in TIMED_CALLS.items():
        images = np.resize(x[:batch], (batch, *x.shape[1:]))  # repeats images if there are fewer
        predict_on_batch(images)
        taken = []
        for _ in range(calls):
            started = time.perf_counter()
            predict_on_batch(images)
            taken.append(time.perf_counter() - started)
        seconds[f"batch_{batch}"] = statistics.median(taken) / batch
    return seconds


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
