"""Train as a user would with plain Keras: `model.fit` on arrays, and defaults for the rest.

    python benchmarks/peers/keras_script.py cnn data/prepared

The layers are those of settings.yaml, whose batch size and dropout `bench.py` passes; the optimizer
is Keras's default Adam, without augmentation. Prints a JSON object with the seconds of each epoch,
validation included. A warm-up builds the graph first.
"""

import argparse
import json
import time

import keras
import numpy as np
from keras import layers

parser = argparse.ArgumentParser()
parser.add_argument("model", choices=["cnn", "lstm", "hybrid"])
parser.add_argument("folder", help="folder of the prepared arrays")
parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--no-batch-norm", action="store_true")
arguments = parser.parse_args()

keras.utils.set_random_seed(1)
if arguments.precision == "bfloat16":
    keras.config.set_dtype_policy("mixed_bfloat16")

x_train, y_train, x_val, y_val = (
    np.load(f"{arguments.folder}/{part}.npy") for part in ("x_train", "y_train", "x_val", "y_val")
)
n = round(len(x_train) * arguments.fraction)
x_train, y_train = x_train[:n].astype("float32") / 255, y_train[:n]
x_val = x_val.astype("float32") / 255


def convolutions():
    for filters in (32, 64):
        yield layers.Conv2D(filters, 3, activation="relu")
        yield layers.MaxPooling2D(2)
        if not arguments.no_batch_norm:
            yield layers.BatchNormalization(momentum=0.9)


def rows(features, units):
    yield layers.Reshape((-1, features))
    yield layers.LSTM(units)
    yield layers.Dropout(arguments.dropout)
    yield layers.Dense(64, activation="relu")
    yield layers.Dropout(arguments.dropout)


hidden = {
    "cnn": lambda: [
        *convolutions(),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(arguments.dropout),
    ],
    "lstm": lambda: rows(28, 128),
    "hybrid": lambda: [*convolutions(), *rows(5 * 64, 144)],
}
model = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        *hidden[arguments.model](),
        layers.Dense(10, activation="softmax", dtype="float32"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
few = 10 * arguments.batch
weights = model.get_weights()
model.fit(x_train[:few], y_train[:few], batch_size=arguments.batch, verbose=0)
model.evaluate(x_val[:few], y_val[:few], batch_size=arguments.batch, verbose=0)
model.set_weights(weights)

epochs = []
for _ in range(arguments.epochs):
    started = time.perf_counter()
    history = model.fit(
        x_train, y_train, batch_size=arguments.batch, validation_data=(x_val, y_val), verbose=0
    ).history
    seconds = time.perf_counter() - started
    last = {key: history[key][0] for key in ("loss", "val_accuracy")}
    epochs.append({"seconds": seconds} | last)
print(json.dumps({"epochs": epochs, "examples": n, "parameters": model.count_params()}))
