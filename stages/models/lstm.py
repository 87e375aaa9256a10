"""LSTM: reads the image from top to bottom, one row of pixels per time step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.params import Model, Recurrent

if TYPE_CHECKING:
    import keras


class Section(Recurrent, Model):
    """The section `lstm` of `params.yaml`."""


def build(input_shape: tuple[int, int, int], num_classes: int, p: Section) -> keras.Sequential:
    """Build the LSTM; see `stages.models.build`."""
    from keras import layers

    from stages.models.shared import blocks

    height, width, channels = input_shape
    return blocks.sequential("lstm", input_shape, [
        layers.Reshape((height, width * channels)),
        *blocks.lstm_layers(p),
        layers.Dropout(p.dropout),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
