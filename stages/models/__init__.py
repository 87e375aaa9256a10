"""The models: one file per architecture, with its parameters and its list of layers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from stages.common.params import Model


def build(
    name: str, input_shape: tuple[int, int, int], num_classes: int, section: Model
) -> keras.Sequential:
    """Build the untrained model `name` with the function `build` of `stages/models/NAME.py`.

    Parameters
    ----------
    input_shape
        Height, width and channels of the images.
    section
        The model's section of `params.yaml`.

    Returns
    -------
    keras.Sequential
        Maps pixels in 0..255, (n, height, width, channels), to class probabilities, float32
        (n, num_classes).
    """
    module = importlib.import_module(f"stages.models.{name}")
    return module.build(tuple(input_shape), num_classes, section)
