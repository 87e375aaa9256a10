"""The architectures, side by side as lists of layers.

Each `build_NAME(input_shape, num_classes, p)` takes the images' shape (height, width, channels),
the number of classes and its section of `params.yaml`, and returns an untrained
`keras.Sequential` that maps pixels in 0..255, (n, height, width, channels), to class
probabilities, float32 (n, num_classes). `Rescaling` makes the pixels [0, 1].
"""

from __future__ import annotations

import keras
from keras import layers

from stages.files import StageError
from stages.params import Cnn, Convolutional, Hybrid, Lstm, Model, Recurrent

POOL = 2  # side of the pooling window, pixels


def build_cnn(input_shape: tuple[int, int, int], num_classes: int, p: Cnn) -> keras.Sequential:
    """LeNet-like: convolution blocks, then a dense layer on all features."""
    return sequential("cnn", input_shape, [
        *convolution_blocks(input_shape, p, "cnn"),
        layers.Flatten(),
        *hidden_layer(p),
        probabilities(num_classes),
    ])  # fmt: skip


def build_lstm(input_shape: tuple[int, int, int], num_classes: int, p: Lstm) -> keras.Sequential:
    """Reads the image from top to bottom, a row of pixels a time step."""
    height, width, channels = input_shape
    return sequential("lstm", input_shape, [
        layers.Reshape((height, width * channels)),
        *lstm_layers(p),
        layers.Dropout(p.dropout),
        *hidden_layer(p),
        probabilities(num_classes),
    ])  # fmt: skip


def build_hybrid(
    input_shape: tuple[int, int, int], num_classes: int, p: Hybrid
) -> keras.Sequential:
    """Convolution blocks, then an LSTM: each row of the feature map is a time step."""
    rows, columns = feature_map(input_shape, p, "hybrid")
    return sequential("hybrid", input_shape, [
        *convolution_blocks(input_shape, p, "hybrid"),
        layers.Reshape((rows, columns * p.filters[-1])),
        *lstm_layers(p),
        layers.Dropout(p.dropout),
        *hidden_layer(p),
        probabilities(num_classes),
    ])  # fmt: skip


def build(
    name: str, input_shape: tuple[int, int, int], num_classes: int, section: Model
) -> keras.Sequential:
    """Build the model `name` with the builder `build_NAME` of this module."""
    return globals()[f"build_{name}"](tuple(input_shape), num_classes, section)


# --- shared parts -------------------------------------------------------------------------


def sequential(
    name: str, input_shape: tuple[int, int, int], after_rescaling: list[layers.Layer]
) -> keras.Sequential:
    return keras.Sequential(
        [layers.Input(input_shape), layers.Rescaling(1 / 255), *after_rescaling], name=name
    )


def convolution_blocks(
    input_shape: tuple[int, int, int], p: Convolutional, name: str
) -> list[layers.Layer]:
    """Conv2D, MaxPool and then, on the pooled map where they cost a quarter, ReLU and norm.

    The largest of some numbers, made positive, is the largest of the same numbers made positive:
    the function is that of the usual Conv2D + ReLU, MaxPool.
    """
    feature_map(input_shape, p, name)
    blocks = []
    for filters in p.filters:
        blocks.append(layers.Conv2D(filters, p.kernel_size, padding=p.padding))
        blocks.append(layers.MaxPooling2D(POOL))
        blocks.append(layers.ReLU())
        if p.batch_norm:
            blocks.append(layers.BatchNormalization(momentum=p.batch_norm_momentum))
    return blocks


def feature_map(input_shape: tuple[int, int, int], p: Convolutional, name: str) -> tuple[int, int]:
    """Return height and width after the convolution blocks.

    Raises
    ------
    StageError
        The image is too small for that many blocks.
    """
    sides = list(input_shape[:2])
    for block in range(len(p.filters)):
        if p.padding == "valid":
            sides = [side - p.kernel_size + 1 for side in sides]
        sides = [side // POOL for side in sides]
        if min(sides) < 1:
            raise StageError(
                f"params.yaml: {name}.filters has {len(p.filters)} convolution blocks, but a "
                f"{input_shape[0]}×{input_shape[1]} image has room for {block} "
                f"(kernel_size {p.kernel_size}, padding {p.padding})"
            )
    return sides[0], sides[1]


def lstm_layers(p: Recurrent) -> list[layers.Layer]:
    """One LSTM a number in `units`; all but the last hand on every time step."""
    stack = []
    for i, units in enumerate(p.units):
        layer = layers.LSTM(units, return_sequences=i < len(p.units) - 1)
        stack.append(layers.Bidirectional(layer) if p.bidirectional else layer)
    return stack


def hidden_layer(p: Model) -> list[layers.Layer]:
    """The dense layer before the output, with its dropout; with `dense: 0` there is none."""
    return [layers.Dense(p.dense, activation="relu"), layers.Dropout(p.dropout)] if p.dense else []


def probabilities(num_classes: int) -> layers.Layer:
    """The output layer, in float32 whatever the precision of the others."""
    return layers.Dense(num_classes, activation="softmax", dtype="float32")
