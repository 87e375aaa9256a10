"""Count a model's multiply-adds from the shapes of its layers.

Only products count (convolution, dense, LSTM gates), because the machine's peak is the rate of a
product. Elementwise operations are overhead by this measure.
"""

from __future__ import annotations

import math

import keras


def inference(model: keras.Sequential) -> int:
    """Return the multiply-adds of one image's forward pass."""
    return sum(forward(layer) for layer in model.layers)


def training(model: keras.Sequential) -> int:
    """Return the multiply-adds of one image's forward and backward pass.

    The backward pass has two products for each product of the forward pass: the gradients of the
    weights and of the input. The first layer needs no gradient of its input, the image.
    """
    first = next(layer for layer in model.layers if forward(layer))
    unneeded = forward(first)
    if isinstance(first, keras.layers.LSTM):  # its recurrent part does pass on a gradient
        unneeded = first.input.shape[1] * math.prod(first.cell.kernel.shape)
    return 3 * inference(model) - unneeded


def forward(layer: keras.Layer) -> int:
    """Return the multiply-adds of one image's forward pass through a layer."""
    if isinstance(layer, keras.layers.Conv2D):
        _, height, width, filters = layer.output.shape
        return height * width * filters * math.prod(layer.kernel.shape[:3])
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.LSTM):
        steps = layer.input.shape[1]
        kernels = layer.cell.kernel, layer.cell.recurrent_kernel
        return steps * sum(math.prod(kernel.shape) for kernel in kernels)
    if layer.count_params() and not isinstance(layer, keras.layers.BatchNormalization):
        raise ValueError(f"no count for {type(layer).__name__}")
    return 0
