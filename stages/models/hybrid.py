"""CNN+LSTM hybrid: convolution blocks, then an LSTM over the rows of the feature map.

Of a sequence, the blocks run on every frame, and each time step is one frame:
h_t = LSTM(Flatten(Conv2D(x_t))). `kind: convlstm` keeps the feature map: the gates of its LSTM are
convolutions (ConvLSTM; Shi et al., 2015). `cell` replaces the LSTM by a GRU or a simple RNN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from stages.common.params import Convolutional, Model, Name, Recurrent

if TYPE_CHECKING:
    import keras


class Section(Convolutional, Recurrent, Model):
    """The section `hybrid` of `params.yaml`."""

    kind: Annotated[Literal["rows", "convlstm"], Name]


def build(input_shape: tuple[int, ...], num_classes: int, p: Section) -> keras.Model:
    """Build the hybrid; see `stages.models.build`."""
    from keras import layers

    from stages.models.shared import blocks

    shape = blocks.feature_map(input_shape, p, "hybrid")
    over_time = {
        "rows": lambda: [*blocks.per_step(shape, p.head), *blocks.recurrent_layers(p)],
        "convlstm": lambda: blocks.convlstm_layers(shape, p, p.kernel_size, p.head, "hybrid"),
    }
    return blocks.sequential("hybrid", input_shape, [
        *blocks.convolution_blocks(input_shape, p, "hybrid"),
        *over_time[p.kind](),
        layers.Dropout(p.dropout),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
