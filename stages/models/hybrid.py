"""CNN+LSTM hybrid: convolution blocks, then an LSTM over the rows of the feature map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.params import Convolutional, Model, Recurrent

if TYPE_CHECKING:
    import keras


class Section(Convolutional, Recurrent, Model):
    """The section `hybrid` of `params.yaml`."""


def build(input_shape: tuple[int, int, int], num_classes: int, p: Section) -> keras.Sequential:
    """Build the hybrid; see `stages.models.build`."""
    from keras import layers

    from stages.models.shared.blocks import (
        convolution_blocks,
        feature_map,
        hidden_layer,
        lstm_layers,
        output_layer,
        sequential,
    )

    rows, columns = feature_map(input_shape, p, "hybrid")
    return sequential("hybrid", input_shape, [
        *convolution_blocks(input_shape, p, "hybrid"),
        layers.Reshape((rows, columns * p.filters[-1])),
        *lstm_layers(p),
        layers.Dropout(p.dropout),
        *hidden_layer(p),
        output_layer(num_classes),
    ])  # fmt: skip
