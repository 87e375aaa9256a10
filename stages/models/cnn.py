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

    from stages.models.shared import blocks

    return blocks.sequential("cnn", input_shape, [
        *blocks.convolution_blocks(input_shape, p, "cnn"),
        layers.Flatten(),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
