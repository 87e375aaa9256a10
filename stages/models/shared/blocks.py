"""Build the layers that several models share."""

from __future__ import annotations

import keras
from keras import layers

from stages.common.cli import StageError
from stages.common.params import Convolutional, Model, Recurrent

POOL = 2  # side of the pooling window, pixels


def sequential(
    name: str, input_shape: tuple[int, int, int], model_layers: list[layers.Layer]
) -> keras.Sequential:
    """Return a model that first scales pixels from 0..255 to 0..1."""
    return keras.Sequential(
        [layers.Input(input_shape), layers.Rescaling(1 / 255), *model_layers], name=name
    )


def convolution_blocks(
    input_shape: tuple[int, int, int], p: Convolutional, name: str
) -> list[layers.Layer]:
    """Return blocks of Conv2D → MaxPool → ReLU → BatchNorm, one block per number in `filters`.

    ReLU commutes with max-pooling, so this equals Conv2D+ReLU → MaxPool, but applies ReLU to a
    quarter of the values.
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
    """Return height and width of the feature map after all convolution blocks.

    Raises
    ------
    StageError
        The image is too small for this number of blocks.
    """
    sides = list(input_shape[:2])
    for block in range(len(p.filters)):
        if p.padding == "valid":
            sides = [side - p.kernel_size + 1 for side in sides]
        sides = [side // POOL for side in sides]
        if min(sides) < 1:
            raise StageError(
                f"params.yaml: {name}.filters asks for {len(p.filters)} convolution blocks, but a "
                f"{input_shape[0]}×{input_shape[1]} image has room for {block} "
                f"(kernel_size {p.kernel_size}, padding {p.padding})"
            )
    return sides[0], sides[1]


def lstm_layers(p: Recurrent) -> list[layers.Layer]:
    """Return one LSTM layer per number in `units`. All but the last return whole sequences."""
    stack = []
    for i, units in enumerate(p.units):
        layer = layers.LSTM(units, return_sequences=i < len(p.units) - 1)
        stack.append(layers.Bidirectional(layer) if p.bidirectional else layer)
    return stack


def hidden_layer(p: Model) -> list[layers.Layer]:
    """Return the dense layer before the output and its dropout; nothing if `dense` is 0."""
    return [layers.Dense(p.dense, activation="relu"), layers.Dropout(p.dropout)] if p.dense else []


def output_layer(num_classes: int) -> layers.Layer:
    """Return the softmax layer, in float32 also when the other layers use bfloat16."""
    return layers.Dense(num_classes, activation="softmax", dtype="float32")
