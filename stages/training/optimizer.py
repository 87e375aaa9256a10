"""Make the optimizer, the learning rate schedule and the loss."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from stages.common.params import Model, Train

# fractions of the peak rate: fastai's values for the one-cycle schedule (Smith, 2018)
WARMUP_START = 1 / 25
FINAL_RATE = 1e-3


def learning_rate(
    schedule: str, peak: float, steps: int, warmup: float
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate, or its schedule over `steps` steps, with the largest rate `peak`.

    `warmup` is the fraction of the steps in which ``one_cycle`` climbs to the peak.
    """
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
    """Return the optimizer for `steps` steps. Weight decay leaves out biases and batch norm."""
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
    """Return the cross-entropy loss with label smoothing (Szegedy et al., 2016)."""
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy()

    def loss(y_true, y_pred):
        one_hot = ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), num_classes)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, label_smoothing=label_smoothing
        )

    return loss
