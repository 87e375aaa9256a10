"""Measure our models on a GPU: Keras with the JAX backend, and all data in the GPU's memory.

    KERAS_BACKEND=jax python -m benchmarks.jax_training cnn data/prepared

Models, optimizer, loss and augmentation are those of the pipeline, with the recipes of
`settings.yaml`; the pipeline itself trains with TensorFlow. One compiled function trains an epoch
and validates. Prints a JSON object: seconds of compilation, and of each run of `--epochs` epochs.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np

from benchmarks.bench import measured_params
from stages.common.arrays import Arrays, read_split
from stages.common.params import Params, model_names
from stages.models import build
from stages.training.augmentation import border_level, transforms
from stages.training.optimizer import make_optimizer, smoothed_cross_entropy

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=model_names())
    parser.add_argument("folder", type=Path, help="folder of the prepared arrays")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    arguments = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "tensorfloat32")  # as the peer
    params = measured_params({"epochs": arguments.epochs})
    data = read_split("train", arguments.folder)
    n = round(len(data.y) * arguments.fraction)
    data = Arrays(data.x[:n], data.y[:n])
    trainer = Trainer(arguments.model, params, data, read_split("val", arguments.folder))
    compile_seconds = trainer.compile()
    runs = [trainer.run(seed) for seed in range(1, arguments.runs + 1)]
    facts = {
        "device": jax.devices()[0].device_kind,
        "compile_seconds": compile_seconds,
        "runs": runs,
        "examples": n,
        "parameters": trainer.model.count_params(),
        "versions": {"jax": jax.__version__, "keras": keras.__version__},
    }
    print(json.dumps(facts))


class Trainer:
    """Trains a model, epoch by epoch, with arrays that stay on the device."""

    def __init__(self, name: str, params: Params, train: Arrays, val: Arrays):
        keras.utils.set_random_seed(params.seed)
        self.section = params.models[name]
        self.epochs, self.batch = params.epochs, params.train.batch_size
        steps = math.ceil(len(train.y) / self.batch) * self.epochs
        self.model = build(name, train.x.shape[1:], CLASSES, self.section)
        self.optimizer = make_optimizer(params.train, self.section, steps)
        self.optimizer.build(self.model.trainable_variables)
        self.loss_of = smoothed_cross_entropy(self.section.label_smoothing, CLASSES)
        (self.border,) = border_level(np.asarray(train.x))
        self.arrays = tuple(
            jax.device_put(np.asarray(array)) for array in (train.x, train.y, val.x, val.y)
        )
        variables = (self.model.trainable_variables, self.model.non_trainable_variables)
        self.initial = jax.tree.map(lambda each: each.value, (*variables, self.optimizer.variables))

    def compile(self) -> float:
        """Compile the epoch, and return how many seconds that took."""
        started = time.perf_counter()
        example = self.initial, self.maps(0, 1), jax.random.key(0), *self.arrays
        self.compiled = jax.jit(self.epoch).lower(*example).compile()
        return time.perf_counter() - started

    def maps(self, seed: int, epoch: int) -> jax.Array:
        """Draw an affine map for each image of an epoch, float32 (n, 8)."""
        n, height, width = self.arrays[0].shape[:3]
        random = np.random.default_rng((seed, epoch))
        return jnp.asarray(transforms(random, n, (height, width), self.section))

    def epoch(self, state, maps, key, x, y, x_val, y_val):
        """Train on all batches in random order. Return the state, mean loss, and val accuracy."""
        order = jax.random.permutation(key, len(y))
        whole = len(y) // self.batch * self.batch

        def step(state, chosen):
            return self.step(state, x[chosen], maps[chosen], y[chosen])

        state, losses = jax.lax.scan(step, state, order[:whole].reshape(-1, self.batch))
        total = losses.sum() * self.batch
        if whole < len(y):
            state, loss = step(state, order[whole:])
            total += loss * (len(y) - whole)
        answers, _ = self.model.stateless_call(*state[:2], x_val, training=False)
        return state, total / len(y), (answers.argmax(1) == y_val).mean()

    def step(self, state, x, maps, y):
        """Train on one batch. Return the new state and the loss."""
        weights, others, slots = state
        images = keras.ops.image.affine_transform(
            x.astype("float32"), maps, interpolation="nearest", fill_value=self.border
        )

        def loss_of(weights):
            answers, changed = self.model.stateless_call(weights, others, images, training=True)
            return self.loss_of(y, answers), changed

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights)
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        return (weights, others, slots), loss

    def run(self, seed: int) -> dict[str, float]:
        """Train from the initial weights. Return seconds, last mean loss, last val accuracy."""
        started, state = time.perf_counter(), self.initial
        for epoch in range(1, self.epochs + 1):
            key = jax.random.fold_in(jax.random.key(seed), epoch)
            state, loss, accuracy = self.compiled(state, self.maps(seed, epoch), key, *self.arrays)
        found = {"loss": float(loss), "val_accuracy": float(accuracy)}
        return {"seconds": time.perf_counter() - started} | found


if __name__ == "__main__":
    main()
