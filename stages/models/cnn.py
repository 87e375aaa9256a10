"""CNN: convolution blocks, then a dense layer on all features (like LeNet).

Of a sequence, `frames: mean` runs the blocks on every frame and takes the mean over frames, so the
order of the frames has no effect. `frames: channels` stacks the frames as channels of one image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from stages.common.params import Convolutional, Model, Name

if TYPE_CHECKING:
    import keras


class Section(Convolutional, Model):
    """The section `cnn` of `params.yaml`."""

    frames: Annotated[Literal["mean", "channels"], Name]


def build(input_shape: tuple[int, ...], num_classes: int, p: Section) -> keras.Model:
    """Build the CNN; see `stages.models.build`."""
    from stages.models.shared import blocks

    shape, frames = blocks.frames(input_shape, p.frames)
    return blocks.sequential("cnn", input_shape, [
        *frames,
        *blocks.convolution_blocks(shape, p, "cnn"),
        *blocks.features(blocks.feature_map(shape, p, "cnn"), p.head),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])  # fmt: skip
