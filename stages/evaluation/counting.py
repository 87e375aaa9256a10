"""Count parameters and multiply-adds per layer, and describe a model's architecture.

A multiply-add is one product and one sum. Only products with weights count (convolution, dense,
gates of recurrent layers): elementwise operations take little of the time.
"""

from __future__ import annotations

import math
from typing import Any

import keras

RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
NORMALIZATION = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)


def architecture(model: keras.Model) -> list[dict[str, Any]]:
    """Return one row per layer, in the order in which Keras lists them, without the input layer.

    Returns
    -------
    list of dict
        ``kind`` (class of the layer), ``kernel`` (sides of a convolution's or pooling's window, or
        empty), ``input`` and ``output`` (shapes without the batch axis), ``parameters`` (count,
        moving averages included), ``multiply_adds`` (per image); of a recurrent layer ``steps``
        (count, otherwise 0), ``step`` (row, column or frame) and ``bidirectional``.
    """
    return [
        describe(layer) for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)
    ]


def describe(layer: keras.Layer) -> dict[str, Any]:
    """Return a layer's row of `architecture`."""
    inner = getattr(layer, "forward_layer", layer)  # of a bidirectional layer
    return {
        "kind": type(inner).__name__,
        "kernel": list(getattr(inner, "kernel_size", getattr(inner, "pool_size", ()))),
        "input": shape(layer.input),
        "output": shape(layer.output),
        "parameters": layer.count_params(),
        "multiply_adds": forward(layer),
        "steps": steps(layer),
        "step": step(layer) if steps(layer) else "",
        "bidirectional": inner is not layer,
    }


def shape(tensors: keras.KerasTensor | list[keras.KerasTensor]) -> list[int]:
    """Return the shape of a layer's (first) tensor without the batch axis."""
    tensor = tensors[0] if isinstance(tensors, list) else tensors
    return list(tensor.shape[1:])


def steps(layer: keras.Layer) -> int:
    """Return the number of time steps of a recurrent layer, and 0 for any other layer."""
    return layer.input.shape[1] if isinstance(layer, RECURRENT) else 0


def step(layer: keras.Layer) -> str:
    """Return whether a recurrent layer's time step is a row, a column or a frame of the input."""
    operation, upstream = layer, []
    while not isinstance(operation, keras.layers.InputLayer):
        operation = operation.input._keras_history.operation
        upstream.append(operation)
    if len(operation.output.shape) == 5:  # batch, time, height, width, channels
        return "frame"
    return "column" if any(isinstance(each, keras.layers.Permute) for each in upstream) else "row"


def inference(model: keras.Model) -> int:
    """Return the multiply-adds of one image's forward pass."""
    return sum(forward(layer) for layer in model.layers)


def training(model: keras.Model) -> int:
    """Return the multiply-adds of one image's forward and backward pass.

    The backward pass has two products for each product of the forward pass: the gradients of the
    weights and of the input. The first layer needs no gradient of its input, the image.
    """
    first = next(layer for layer in model.layers if forward(layer))
    unneeded = forward(first)
    if steps(first):  # its recurrent part does pass on a gradient
        unneeded = forward(first, of="input")
    return 3 * inference(model) - unneeded


def forward(layer: keras.Layer, of: str = "all") -> int:
    """Return the multiply-adds of one image's forward pass through a layer.

    Each kernel is applied once per output position and time step. With `of` "input", the kernels
    that a recurrent layer applies to its own state are left out.

    Raises
    ------
    ValueError
        The layer has weights, but no kernels.
    """
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
    if not kernels and layer.count_params() and not isinstance(layer, NORMALIZATION):
        raise ValueError(f"no count for {type(layer).__name__}")
    if of == "input":
        kernels = [kernel for kernel in kernels if kernel.name != "recurrent_kernel"]
    positions = math.prod(shape(layer.output)[:-1])
    if steps(layer) and not layer.return_sequences:
        positions *= steps(layer)
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)
