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

    from stages.models.shared import blocks

    rows, columns = blocks.feature_map(input_shape, p, "hybrid")
    return blocks.sequential("hybrid", input_shape, [
        *blocks.convolution_blocks(input_shape, p, "hybrid"),
        layers.Reshape((rows, columns * p.filters[-1])),
        *blocks.lstm_layers(p),
        layers.Dropout(p.dropout),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
