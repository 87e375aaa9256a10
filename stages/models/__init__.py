"""The models: one file per architecture, with its parameters and its list of layers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from stages.common.cli import StageError

if TYPE_CHECKING:
    import keras

    from stages.common.params import Model


def build(name: str, input_shape: tuple[int, ...], num_classes: int, section: Model) -> keras.Model:
    """Build the untrained model `name` with the function `build` of `stages/models/NAME.py`.

    Parameters
    ----------
    input_shape
        Height, width and channels of the images; for sequences, the number of frames first.
    section
        The model's section of `params.yaml`.

    Returns
    -------
    keras.Model
        Maps pixels in 0..255, (n, *input_shape), to class probabilities, float32
        (n, num_classes).

    Raises
    ------
    StageError
        The image is too small for the model, or `load_model` would refuse the saved model.
    """
    module = importlib.import_module(f"stages.models.{name}")
    model = module.build(tuple(input_shape), num_classes, section)
    from stages.models.shared.safety import check_model

    try:
        check_model(model)
    except ValueError as error:
        raise StageError(f"the model {name} could not be loaded from its file: {error}") from None
    return model
