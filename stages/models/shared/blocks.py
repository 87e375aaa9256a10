"""Build the layers that several models share.

Shapes here have no batch axis: (height, width, channels) of an image, (time, height, width,
channels) of a sequence. Recurrent layers read the first axis as time, which is the rows of an image
and the frames of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import layers

from stages.common.cli import StageError
from stages.common.params import UNDO, Convolutional, Model, Recurrent

POOL = 2  # side of the pooling window, pixels
CELLS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}


def sequential(
    name: str, input_shape: tuple[int, ...], model_layers: list[layers.Layer]
) -> keras.Sequential:
    """Return a model that first scales pixels from 0..255 to 0..1."""
    return keras.Sequential(
        [layers.Input(input_shape), layers.Rescaling(1 / 255), *model_layers], name=name
    )


def branched(
    name: str,
    input_shape: tuple[int, ...],
    branches: list[list[layers.Layer]],
    model_layers: list[layers.Layer],
) -> keras.Model:
    """Return a model whose branches each read the scaled pixels. It concatenates their results."""
    if len(branches) == 1:
        return sequential(name, input_shape, [*branches[0], *model_layers])
    pixels = layers.Input(input_shape)
    scaled = layers.Rescaling(1 / 255)(pixels)
    ends = [_chained(scaled, branch) for branch in branches]
    return keras.Model(pixels, _chained(layers.Concatenate()(ends), model_layers), name=name)


def _chained(x: keras.KerasTensor, model_layers: list[layers.Layer]) -> keras.KerasTensor:
    for layer in model_layers:
        x = layer(x)
    return x


def frames(input_shape: tuple[int, ...], order: str) -> tuple[tuple[int, ...], list[layers.Layer]]:
    """Return the shape that the convolutions of a CNN see, and the layers that make it.

    With the order ``channels``, the frames of a sequence become the channels of one image.
    """
    if len(input_shape) == 3 or order != "channels":
        return input_shape, []
    time, height, width, channels = input_shape
    shape = (height, width, time * channels)
    return shape, [layers.Permute((2, 3, 1, 4)), layers.Reshape(shape)]


def pixels(input_shape: tuple[int, ...], order: str) -> list[layers.Layer]:
    """Return the layers that turn pixels into time steps: rows, columns, or whole frames.

    With the order ``columns``, the image is read from left to right; the frames of a sequence stay
    in order, and their pixels are listed column by column.
    """
    if order == "rows":
        return per_step(input_shape, "flatten")
    *time, height, width, channels = input_shape
    axes = (1, 3, 2, 4) if time else (2, 1, 3)
    shape = (*time, width, height, channels)
    return [layers.Permute(axes), *per_step(shape, "flatten")]


def convolution_blocks(
    input_shape: tuple[int, ...], p: Convolutional, name: str
) -> list[layers.Layer]:
    """Return blocks of Conv2D → MaxPool → ReLU → BatchNorm, one block per number in `filters`.

    ReLU commutes with max-pooling, so this equals Conv2D+ReLU → MaxPool, but applies ReLU to a
    quarter of the values. In a sequence, a Conv3D with a kernel of one frame is a Conv2D on every
    frame; batch norm then takes its statistics over all frames.
    """
    feature_map(input_shape, p, name)
    blocks = []
    for filters in p.filters:
        if len(input_shape) == 3:
            blocks.append(layers.Conv2D(filters, p.kernel_size, padding=p.padding))
            blocks.append(layers.MaxPooling2D(POOL))
        else:
            kernel = (1, p.kernel_size, p.kernel_size)
            blocks.append(layers.Conv3D(filters, kernel, padding=p.padding))
            blocks.append(layers.MaxPooling3D((1, POOL, POOL)))
        blocks.append(layers.ReLU())
        if p.batch_norm:
            blocks.append(layers.BatchNormalization(momentum=p.batch_norm_momentum))
    return blocks


def feature_map(input_shape: tuple[int, ...], p: Convolutional, name: str) -> tuple[int, ...]:
    """Return the shape after all convolution blocks: time (of a sequence), rows, columns, filters.

    Raises
    ------
    StageError
        The image is too small for this number of blocks.
    """
    *time, height, width, _ = input_shape
    sides = [height, width]
    for block in range(len(p.filters)):
        if p.padding == "valid":
            sides = [side - p.kernel_size + 1 for side in sides]
        sides = [side // POOL for side in sides]
        if min(sides) < 1:
            raise StageError(
                f"params.yaml: {name}.filters asks for {len(p.filters)} convolution blocks, but a "
                f"{height}×{width} image has room for {block} "
                f"(kernel_size {p.kernel_size}, padding {p.padding}); {UNDO}"
            )
    return (*time, *sides, p.filters[-1])


def per_step(shape: tuple[int, ...], head: str) -> list[layers.Layer]:
    """Return the layers that turn the features of each time step into one vector.

    ``flatten`` keeps all of them; ``average`` takes the mean over positions, per channel.
    """
    if head == "flatten":
        return [layers.Reshape((shape[0], math.prod(shape[1:])))]
    average = {3: layers.AveragePooling2D, 4: layers.AveragePooling3D}[len(shape)]
    return [average((1, *shape[1:-1])), layers.Reshape((shape[0], shape[-1]))]


def features(shape: tuple[int, ...], head: str) -> list[layers.Layer]:
    """Return the layers that turn a feature map into one vector: of a sequence, the frames' mean.

    ``flatten`` keeps all positions; ``average`` takes their mean, per channel.
    """
    if len(shape) == 4:
        return [*per_step(shape, head), layers.GlobalAveragePooling1D()]
    return [layers.Flatten() if head == "flatten" else layers.GlobalAveragePooling2D()]


def recurrent_layers(p: Recurrent) -> list[layers.Layer]:
    """Return one recurrent layer per number in `units`, and the mean over time if `pool` is mean.

    All but the last return whole sequences.
    """
    mean = [layers.GlobalAveragePooling1D()] if p.pool == "mean" else []
    return [*_stack(p, CELLS[p.cell]), *mean]


def convlstm_layers(
    shape: tuple[int, ...], p: Recurrent, kernel_size: int, head: str, name: str
) -> list[layers.Layer]:
    """Return one ConvLSTM layer per number in `units`, then the head, which makes one vector.

    A time step is a frame, or a row of an image, whose gates are convolutions along the row.

    Raises
    ------
    StageError
        Another `cell` is set: Keras has convolutional LSTMs only.
    """
    if p.cell != "lstm":
        raise StageError(
            f"params.yaml: {name}.kind=convlstm has lstm cells only, but {name}.cell is {p.cell}; "
            f"{UNDO}"
        )
    kind = {3: layers.ConvLSTM1D, 4: layers.ConvLSTM2D}[len(shape)]

    def layer(units: int, return_sequences: bool) -> layers.Layer:
        return kind(units, kernel_size, padding="same", return_sequences=return_sequences)

    channels = p.units[-1] * (2 if p.bidirectional else 1)
    if p.pool == "mean":
        ends = [*per_step((*shape[:-1], channels), head), layers.GlobalAveragePooling1D()]
    elif head == "average":
        ends = [{3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D}[len(shape)]()]
    else:
        ends = [layers.Flatten()]
    return [*_stack(p, layer), *ends]


def _stack(p: Recurrent, make: Callable[..., layers.Layer]) -> list[layers.Layer]:
    """Return one layer of `make` per number in `units`."""
    stack = []
    for i, units in enumerate(p.units):
        whole = p.pool == "mean" or i < len(p.units) - 1
        layer = make(units, return_sequences=whole)
        stack.append(layers.Bidirectional(layer) if p.bidirectional else layer)
    return stack


def hidden_layer(p: Model) -> list[layers.Layer]:
    """Return the dense layer before the output and its dropout; nothing if `dense` is 0."""
    return [layers.Dense(p.dense, activation="relu"), layers.Dropout(p.dropout)] if p.dense else []


def output_layer(num_classes: int) -> layers.Layer:
    """Return the softmax layer, in float32 also when the other layers use bfloat16."""
    return layers.Dense(num_classes, activation="softmax", dtype="float32")
