"""CNN: convolution blocks, then a dense layer on all features (like LeNet)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.params import Convolutional, Model

if TYPE_CHECKING:
    import keras


class Section(Convolutional, Model):
    """The section `cnn` of `params.yaml`."""


def build(input_shape: tuple[int, int, int], num_classes: int, p: Section) -> keras.Sequential:
    """Build the CNN; see `stages.models.build`."""
    from keras import layers

    from stages.models.shared.blocks import (
        convolution_blocks,
        hidden_layer,
        output_layer,
        sequential,
    )

    return sequential("cnn", input_shape, [
        *convolution_blocks(input_shape, p, "cnn"),
        layers.Flatten(),
        *hidden_layer(p),
        output_layer(num_classes),
    ])  # fmt: skip
