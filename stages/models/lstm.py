"""LSTM: reads the image from top to bottom, one row of pixels per time step.

`read: columns` reads it from left to right, `both` in two branches. Of a sequence, each time step
is one frame. `cell` replaces the LSTM by a GRU or a simple RNN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from stages.common.params import Model, Name, Recurrent

if TYPE_CHECKING:
    import keras


class Section(Recurrent, Model):
    """The section `lstm` of `params.yaml`."""

    read: Annotated[Literal["rows", "columns", "both"], Name]


def build(input_shape: tuple[int, ...], num_classes: int, p: Section) -> keras.Model:
    """Build the LSTM; see `stages.models.build`."""
    from keras import layers

    from stages.models.shared import blocks

    orders = ("rows", "columns") if p.read == "both" else (p.read,)
    branches = [
        [*blocks.pixels(input_shape, order), *blocks.recurrent_layers(p)] for order in orders
    ]
    return blocks.branched("lstm", input_shape, branches, [
        layers.Dropout(p.dropout),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
