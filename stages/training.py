"""Training one model: the examples of an epoch, the graph they run through, the recipe.

The order of the examples and their augmentation are functions of (seed, epoch) alone, so that an
epoch is the same whatever ran before it. `fit` is used by the stage, and by whatever else trains.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
from keras import ops

from stages.backend import feed
from stages.checkpoints import Progress
from stages.files import StageError
from stages.params import Model, Train

STEPS_PER_EXECUTION = 32  # steps the backend runs without returning to Python
WARMUP_START = 1 / 25  # of the peak rate; the values of fastai's one-cycle (Smith, 2018)
FINAL_RATE = 1e-3  # of the peak rate
RELEASE = 16  # steps after which what was read of the data's file need not stay in memory
PREDICTION_BATCH = 250  # images a step where nothing is learned
DIVERGED = 3  # times the loss of guessing, ln(classes), over a whole epoch: that is no learning


@dataclass
class Arrays:
    """One part of the prepared data: `x` uint8 (n, h, w, c), maybe memory-mapped; `y` (n,)."""

    x: np.ndarray
    y: np.ndarray

    def release(self) -> None:
        """Let the system drop the mapped pages read so far; they stay in its file cache.

        Linux maps more than the images that are read, with large pages soon the whole file.
        """
        mapped = getattr(self.x, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


class Epoch(keras.utils.PyDataset):
    """The batches of one epoch, shuffled and, where the recipe says so, augmented."""

    def __init__(self, data: Arrays, batch_size: int, section: Model, seed: int, epoch: int):
        super().__init__()
        self.data, self.batch_size, self.section = data, batch_size, section
        self.seed, self.epoch = seed, epoch
        self.order = np.random.default_rng((seed, epoch)).permutation(len(data.y))

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        chosen = np.sort(self.order[step * self.batch_size : (step + 1) * self.batch_size])
        inputs = {"image": self.data.x[chosen]}
        if augments(self.section):
            random = np.random.default_rng((self.seed, self.epoch, step))
            height, width = inputs["image"].shape[1:3]
            inputs["transform"] = transforms(random, len(chosen), (height, width), self.section)
        if step % RELEASE == RELEASE - 1 or step == len(self) - 1:
            self.data.release()
        return inputs, self.data.y[chosen]


class InOrder(keras.utils.PyDataset):
    """Batches in the order of the data, nothing changed: for validation."""

    def __init__(self, data: Arrays, batch_size: int):
        super().__init__()
        self.data, self.batch_size = data, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.data.y) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        part = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return {"image": np.asarray(self.data.x[part])}, self.data.y[part]


def augments(section: Model) -> bool:
    """Whether a recipe changes the training images at all."""
    return bool(section.shift or section.rotation or section.zoom or section.flip)


def transforms(
    random: np.random.Generator, n: int, size: tuple[int, int], section: Model
) -> np.ndarray:
    """Draw `n` affine maps from output to input pixels, about the image's centre.

    Returns
    -------
    numpy.ndarray
        float32 (n, 8), ``[a0, a1, a2, b0, b1, b2, 0, 0]``: the output pixel (x, y) is the input
        pixel (a0 x + a1 y + a2, b0 x + b1 y + b2), as `keras.ops.image.affine_transform` has it.
    """
    angle = np.deg2rad(random.uniform(-1, 1, n) * section.rotation)
    scale = 1 / (1 + random.uniform(-1, 1, n) * section.zoom)
    mirror = np.where(section.flip & (random.random(n) < 0.5), -1.0, 1.0)
    shift = random.integers(-section.shift, section.shift, (2, n), endpoint=True)
    a0, a1 = mirror * scale * np.cos(angle), -mirror * scale * np.sin(angle)
    b0, b1 = scale * np.sin(angle), scale * np.cos(angle)
    centre_y, centre_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    a2 = centre_x - a0 * (centre_x + shift[0]) - a1 * (centre_y + shift[1])
    b2 = centre_y - b0 * (centre_x + shift[0]) - b1 * (centre_y + shift[1])
    zero = np.zeros(n)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)


class TrainingGraph(keras.Model):
    """A model run as training wants it: images augmented, each batch in parallel parts.

    The parts are independent branches of one graph, which the backend runs side by side: small
    operations fill the processor better so than when each is shared among threads. Where a model
    normalizes batches, it does so part by part ("ghost" batches; Hoffer et al., 2017). The weights
    are those of `model`, which stays plain and is what gets saved.
    """

    def __init__(self, model: keras.Sequential, section: Model, batch_parts: int):
        super().__init__(name=f"train_{model.name}")
        self.model = model
        self.batch_parts = batch_parts
        # Whole pixels moved to whole pixels need no interpolation, which is slower.
        self.between_pixels = bool(section.rotation or section.zoom)

    def call(self, inputs: dict, training: bool = False):
        x = inputs["image"]
        if training and "transform" in inputs:
            x = ops.image.affine_transform(
                ops.cast(x, "float32") if self.between_pixels else x,
                inputs["transform"],
                interpolation="bilinear" if self.between_pixels else "nearest",
            )
        n = ops.shape(x)[0]
        cuts = [n * part // self.batch_parts for part in range(self.batch_parts + 1)]
        return ops.concatenate([self.model(x[a:b], training=training) for a, b in pairwise(cuts)])


def learning_rate(
    schedule: str, peak: float, steps: int, warmup: float
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the rate, or its schedule over `steps` steps, for an optimizer."""
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps=steps)
    climb = max(1, round(warmup * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak * WARMUP_START,
        warmup_target=peak,
        warmup_steps=climb,
        decay_steps=max(1, steps - climb),
        alpha=FINAL_RATE,
    )


def make_optimizer(train: Train, section: Model, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer for a run of `steps` steps; biases and norms are never decayed."""
    shared = {
        "learning_rate": learning_rate(train.schedule, section.learning_rate, steps, train.warmup),
        "weight_decay": section.weight_decay or None,
        "global_clipnorm": train.clip_norm or None,
    }
    kinds = {
        "adam": lambda: keras.optimizers.Adam(**shared),
        "adamw": lambda: keras.optimizers.AdamW(**shared | {"weight_decay": section.weight_decay}),
        "rmsprop": lambda: keras.optimizers.RMSprop(**shared),
        "sgd": lambda: keras.optimizers.SGD(**shared, momentum=train.momentum, nesterov=True),
    }
    optimizer = kinds[train.optimizer]()
    if section.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def smoothed_cross_entropy(label_smoothing: float, num_classes: int) -> Callable:
    """Return the loss: cross-entropy against targets smoothed as Szegedy et al. (2016) do."""
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy()

    def loss(y_true, y_pred):
        one_hot = ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), num_classes)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, label_smoothing=label_smoothing
        )

    return loss


def fit(
    model: keras.Sequential,
    train_data: Arrays,
    val_data: Arrays,
    *,
    epochs: int,
    seed: int,
    train: Train,
    section: Model,
    batch_parts: int,
    progress: Progress | None = None,
    keep: Callable[[Progress], None] | None = None,
) -> Iterator[dict[str, float]]:
    """Train `model` in place; yield a row of history after each epoch.

    Parameters
    ----------
    progress
        What `keep` was given by a training with the same arguments: go on from there.
    keep
        Called after each epoch with all that the following ones depend on.

    Yields
    ------
    dict
        ``epoch`` from 1, ``accuracy, val_accuracy, loss, val_loss, learning_rate`` (the rate at
        the epoch's end) and ``seconds``, those of `keep` left out. Losses are plain cross-entropy
        in nats; the training figures are running means over the epoch, augmentation and dropout
        included. Epochs that `progress` has are not yielded again.

    Raises
    ------
    StageError
        The loss is no longer finite, or far above that of guessing.
    """
    steps = math.ceil(len(train_data.y) / train.batch_size)
    graph = TrainingGraph(model, section, batch_parts)
    graph.compile(
        optimizer=make_optimizer(train, section, steps * epochs),
        loss=smoothed_cross_entropy(section.label_smoothing, model.output_shape[-1]),
        metrics=[
            "accuracy",
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
        steps_per_execution=min(STEPS_PER_EXECUTION, steps),
        jit_compile="auto" if keras.backend.backend() != "tensorflow" else False,
    )
    validation = feed(InOrder(val_data, PREDICTION_BATCH))
    rows: list[dict[str, float]] = []
    best_weights, resumed = None, 0
    if progress:
        rows, best_weights, resumed = list(progress.rows), progress.best_weights, progress.resumed
        restore(graph, progress.variables)
    while len(rows) < epochs and not out_of_patience(rows, train.early_stopping):
        started = time.perf_counter()
        logs = graph.fit(
            feed(Epoch(train_data, train.batch_size, section, seed, len(rows) + 1)),
            validation_data=validation,
            shuffle=False,
            verbose=0,
        ).history
        row = {
            "epoch": len(rows) + 1,
            "accuracy": logs["accuracy"][0],
            "val_accuracy": logs["val_accuracy"][0],
            "loss": logs["cross_entropy"][0],
            "val_loss": logs["val_cross_entropy"][0],
            "learning_rate": float(ops.convert_to_numpy(graph.optimizer.learning_rate)),
            "seconds": time.perf_counter() - started,
        }
        values = [ops.convert_to_numpy(variable) for variable in state(graph)]
        check_convergence(row, values, model)
        rows.append(row)
        if train.early_stopping and best_epoch(rows) == row["epoch"]:
            best_weights = model.get_weights()
        if keep:
            keep(Progress(list(rows), values, best_weights, resumed))
        yield row
    if best_weights is not None:
        model.set_weights(best_weights)


def state(graph: TrainingGraph) -> list[keras.Variable]:
    """Return all variables that one epoch leaves to the next; metrics start anew each time."""
    return [*graph.model.variables, *graph.optimizer.variables]


def restore(graph: TrainingGraph, values: list[np.ndarray]) -> None:
    """Set the variables of `state`, those included that an optimizer makes at its first step."""
    graph.optimizer.build(graph.model.trainable_variables)
    for variable, value in zip(state(graph), values, strict=True):
        variable.assign(value)


def best_epoch(rows: list[dict[str, float]]) -> int:
    """Return the epoch, from 1, with the lowest validation loss; the first one of equals."""
    return int(np.argmin([row["val_loss"] for row in rows])) + 1


def out_of_patience(rows: list[dict[str, float]], patience: int) -> bool:
    """Whether early stopping ends here: `patience` epochs without a better loss; 0 is never."""
    return bool(patience and rows) and len(rows) - best_epoch(rows) >= patience


def check_convergence(
    row: dict[str, float], values: list[np.ndarray], model: keras.Sequential
) -> None:
    """Raise StageError when losses or variables are not finite, or nothing is learned.

    A loss can be finite where weights are not: a ReLU may take "not a number" for zero.
    """
    finite = all(np.isfinite(value).all() for value in (row["loss"], row["val_loss"], *values))
    if finite and row["loss"] <= DIVERGED * math.log(max(2, model.output_shape[-1])):
        return
    weights = (
        "" if finite or not np.isfinite(row["loss"]) else ", with weights that are no numbers,"
    )
    raise StageError(
        f"{model.name}: the loss is {row['loss']:.4g} ({row['val_loss']:.4g} in validation)"
        f"{weights} after epoch {row['epoch']}, at learning rate {row['learning_rate']:.2g}: the "
        f"training diverges; try a smaller {model.name}.learning_rate, or train.clip_norm=1"
    )


def score(model: keras.Model, data: Arrays, workers: int = 1) -> dict[str, float]:
    """Return accuracy and mean cross-entropy (nats) of a model, nothing dropped or augmented."""
    probabilities = predict(model, data.x, workers)
    right = probabilities.argmax(axis=1) == data.y
    likelihood = probabilities[np.arange(len(data.y)), data.y].astype(np.float64)
    loss = -np.log(np.maximum(likelihood, keras.config.epsilon())).mean()
    return {"accuracy": float(right.mean()), "loss": float(loss)}


def predict(model: keras.Model, x: np.ndarray, workers: int = 1) -> np.ndarray:
    """Return the probabilities, float32 (n, classes), that a model gives images `x`.

    The batches are the same for any number of `workers`, which is how many run side by side.
    """

    def probabilities(start: int) -> np.ndarray:
        return np.asarray(model.predict_on_batch(x[start : start + PREDICTION_BATCH]))

    starts = range(0, len(x), PREDICTION_BATCH)
    first = [probabilities(start) for start in starts[:1]]  # builds the graph, in one thread
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(first + list(pool.map(probabilities, starts[1:])))
