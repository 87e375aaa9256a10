"""The multiply-adds that the models' products need, counted by hand from the layers' shapes.

Only products count (convolution, dense, LSTM gates), as the machine's limit is a product's rate;
what is done element by element is overhead by this measure.
"""

from __future__ import annotations

import math

import keras


def forward(layer: keras.Layer) -> int:
    """Return the multiply-adds of one image's pass through a layer."""
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


def training(model: keras.Sequential) -> int:
    """Return the multiply-adds of one image's forward and backward pass.

    Backward there are two products for each one forward: the gradients of the weights and of the
    input. The first layer's input is the image, whose gradient nobody needs.
    """
    counted = [layer for layer in model.layers if forward(layer)]
    first = counted[0]
    unneeded = forward(first)
    if isinstance(first, keras.layers.LSTM):  # its recurrent half has a gradient to hand back
        unneeded = first.input.shape[1] * math.prod(first.cell.kernel.shape)
    return 3 * inference(model) - unneeded


def inference(model: keras.Sequential) -> int:
    """Return the multiply-adds of one image's forward pass."""
    return sum(forward(layer) for layer in model.layers)
