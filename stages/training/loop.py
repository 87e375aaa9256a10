"""The training loop: graph, epochs, convergence check and early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import keras
import numpy as np
from keras import ops

from stages.common.arrays import Arrays
from stages.common.cli import StageError
from stages.common.params import Model, Train
from stages.models.shared.inference import PREDICTION_BATCH
from stages.training.augmentation import border_level
from stages.training.batches import Epochs, InOrder
from stages.training.checkpoints import Progress
from stages.training.optimizer import make_optimizer, smoothed_cross_entropy
from stages.training.runtime import feed

STEPS_PER_EXECUTION = 32  # steps that the backend runs without returning to Python
DIVERGED = 3  # times ln(classes), the loss of uniform guessing: a higher loss is very high


class TrainingGraph(keras.Model):
    """The graph that training runs: augment the images, then run the batch in parallel parts.

    The parts are independent branches of one graph, so the backend runs them at the same time.
    For small operations this uses the cores better than sharing each operation among threads.
    Batch norm computes its statistics per part (ghost batch norm; Hoffer et al., 2017). The
    weights belong to `model`, a plain Keras model, which is saved without this graph.
    """

    def __init__(
        self,
        model: keras.Model,
        section: Model,
        batch_parts: int,
        border: Sequence[int] = (0,),
    ):
        super().__init__(name=f"train_{model.name}", autocast=False)  # keep the maps in float32
        self.model = model
        self.batch_parts = batch_parts
        self.border = border[:1] if len(set(border)) == 1 else border  # one call for all channels
        # Shifts by whole pixels and flips need no interpolation, which is slower.
        self.between_pixels = bool(section.rotation or section.zoom)

    def call(self, inputs: dict, training: bool = False):
        x = inputs["image"]
        if training and "transform" in inputs:
            x = self.transformed(x, inputs["transform"])
        n = ops.shape(x)[0]
        cuts = [n * part // self.batch_parts for part in range(self.batch_parts + 1)]
        return ops.concatenate([self.model(x[a:b], training=training) for a, b in pairwise(cuts)])

    def transformed(self, x, maps):
        """Return images or sequences moved by affine maps; all frames of a sequence by the same."""
        *frames, height, width, channels = x.shape[1:]
        images = ops.reshape(x, (-1, height, width, channels)) if frames else x
        shown = moved(
            ops.cast(images, "float32") if self.between_pixels else images,
            ops.repeat(maps, frames[0], axis=0) if frames else maps,
            interpolation="bilinear" if self.between_pixels else "nearest",
            border=self.border,
        )
        return ops.reshape(shown, ops.shape(x)) if frames else shown


def moved(x, maps, interpolation: str, border: Sequence[int]):
    """Return images moved by affine maps. `border`, for all channels or each, fills the rest."""
    planes = ops.split(x, len(border), axis=-1) if len(border) > 1 else [x]
    filled = [
        ops.image.affine_transform(plane, maps, interpolation=interpolation, fill_value=level)
        for plane, level in zip(planes, border, strict=True)
    ]
    return ops.concatenate(filled, axis=-1) if len(filled) > 1 else filled[0]


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
    """Train `model` in place and yield one row of history per epoch.

    Parameters
    ----------
    progress
        State that `keep` received in an earlier call with the same arguments. Training
        continues from there.
    keep
        Called after each epoch with the state that later epochs depend on.

    Yields
    ------
    dict
        ``epoch`` from 1; ``accuracy, val_accuracy`` as fractions; ``loss, val_loss``, cross-entropy
        in nats without label smoothing or class weights; ``learning_rate`` at the end of the
        epoch; ``seconds``, without those spent in `keep`. Training metrics are running means over
        the epoch, with augmentation and dropout. Epochs in `progress` are not yielded again.

    Raises
    ------
    StageError
        A loss or weight is not finite, or the loss was far above that of uniform guessing in two
        epochs in a row.
    """
    steps = math.ceil(len(train_data.y) / train.batch_size)
    graph = TrainingGraph(model, section, batch_parts, border_level(train_data.x))
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
    weights = balanced(train_data.y) if train.class_weight == "balanced" else None
    batches = Epochs(train_data, train.batch_size, section, seed, weights)
    training = feed(batches)  # one for all epochs: TensorFlow never frees a generator's function
    validation = feed(InOrder(val_data, PREDICTION_BATCH))
    rows: list[dict[str, float]] = []
    best_weights, resumed = None, 0
    if progress:
        rows, best_weights, resumed = list(progress.rows), progress.best_weights, progress.resumed
        restore(graph, progress.variables)
    while len(rows) < epochs and not out_of_patience(rows, train.early_stopping):
        started = time.perf_counter()
        batches.start(len(rows) + 1)
        logs = graph.fit(
            training,
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
        rows.append(row)
        check_convergence(rows, values, model)
        if train.early_stopping and best_epoch(rows) == row["epoch"]:
            best_weights = model.get_weights()
        if keep:
            keep(Progress(list(rows), values, best_weights, resumed))
        yield row
    if best_weights is not None:
        model.set_weights(best_weights)


def balanced(y: np.ndarray) -> np.ndarray:
    """Return a weight for each label in `y` (n,), float32 (n,) with mean 1.

    It is n / (k × count of the label) with k classes, as in scikit-learn's ``balanced``.
    """
    classes, positions, counts = np.unique(y, return_inverse=True, return_counts=True)
    return (len(y) / (len(classes) * counts))[positions].astype(np.float32)


def state(graph: TrainingGraph) -> list[keras.Variable]:
    """Return all variables that one epoch hands on to the next."""
    return [*graph.model.variables, *graph.optimizer.variables]


def restore(graph: TrainingGraph, values: list[np.ndarray]) -> None:
    """Set the variables that `state` returns. The optimizer creates its own only when built."""
    graph.optimizer.build(graph.model.trainable_variables)
    for variable, value in zip(state(graph), values, strict=True):
        variable.assign(value)


def best_epoch(rows: list[dict[str, float]]) -> int:
    """Return the first epoch, counted from 1, with the lowest validation loss."""
    return int(np.argmin([row["val_loss"] for row in rows])) + 1


def out_of_patience(rows: list[dict[str, float]], patience: int) -> bool:
    """Return whether `patience` epochs have passed without a lower validation loss. 0: never."""
    return bool(patience and rows) and len(rows) - best_epoch(rows) >= patience


def check_convergence(
    rows: list[dict[str, float]], values: list[np.ndarray], model: keras.Model
) -> None:
    """Raise StageError if the training diverges.

    That is: a loss or weight is not finite, or the loss was very high in the last two epochs. The
    loss can be finite although weights are not: ReLU may map NaN to zero. One epoch with a high
    loss, for example the first one, may be followed by better ones.
    """
    row = rows[-1]
    finite = all(np.isfinite(value).all() for value in (row["loss"], row["val_loss"], *values))
    limit = DIVERGED * math.log(max(2, model.output_shape[-1]))
    high = [past["loss"] > limit for past in rows[-2:]]
    if finite and high != [True, True]:
        return
    hidden = not finite and np.isfinite(row["loss"])
    weights = " (some weights are NaN or infinite)" if hidden else ""
    raise StageError(
        f"{model.name}: training diverges. The loss is {row['loss']:.4g} (validation "
        f"{row['val_loss']:.4g}) after epoch {row['epoch']}{weights}, at learning rate "
        f"{row['learning_rate']:.2g}. Try a smaller {model.name}.learning_rate, or "
        "train.clip_norm=1"
    )
