"""What a model file may hold, checked before Keras opens it.

Keras's safe mode refuses pickled functions, but builds whatever else a file names, of any size.
Here a file may hold plain layers alone, weights that it truly contains, and no other members: no
code to run, no bomb to unpack, no path to write to.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.backend.common import global_state

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, "metadata.json", WEIGHTS}
MAX_FILE = 2**28  # bytes: 67 million weights
MAX_CONFIG = 2**20  # bytes
MAX_LAYERS = 200
MAX_OUTPUT = 2**24  # values of one layer for one image
MAX_ITEMS = 10_000  # groups and arrays among the weights
WEIGHT_SIZE = 4  # bytes, float32
LAYERS = {
    "Activation", "AveragePooling2D", "BatchNormalization", "Bidirectional", "Conv1D", "Conv2D",
    "Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GRU", "GlobalAveragePooling2D",
    "GlobalMaxPooling2D", "InputLayer", "LSTM", "LayerNormalization", "MaxPooling2D", "Permute",
    "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "SimpleRNN", "SpatialDropout2D",
}  # fmt: skip
INITIALIZERS = {
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
    "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
    "Zeros",
}  # fmt: skip
ALLOWED = {
    "keras": {"DTypePolicy", "Sequential"},
    "keras.initializers": INITIALIZERS,
    "keras.layers": LAYERS,
    "keras.regularizers": {"L1", "L1L2", "L2"},
}


def check_archive(path: Path) -> None:
    """Refuse a model file that holds more than a plain model.

    Raises
    ------
    ValueError
        It says what else the file holds.
    Exception
        Whatever the readers of ZIP, JSON, HDF5 and Keras raise on a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if set(infos) != MEMBERS or len(infos) != len(archive.infolist()):
            raise ValueError(f"it should hold {', '.join(sorted(MEMBERS))} and nothing else")
        if path.stat().st_size > MAX_FILE or infos[CONFIG].file_size > MAX_CONFIG:
            raise ValueError(f"it is larger than {MAX_FILE} bytes, or {CONFIG} than {MAX_CONFIG}")
        for info in infos.values():  # Keras packs nothing
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename} is compressed")
        config = json.loads(archive.read(CONFIG))
        check_config(config)
        content = archive.read(WEIGHTS)
    with h5py.File(io.BytesIO(content), "r") as weights:
        held = held_bytes(weights, len(content))
    check_size(config, held)


def check_config(value: Any) -> None:
    """Refuse every object that is not of an allowed class, wherever in the description it is."""
    if isinstance(value, list):
        for item in value:
            check_config(item)
    if not isinstance(value, dict):
        return
    if "class_name" in value:
        module, name = value.get("module"), value["class_name"]
        if name not in ALLOWED.get(module, ()) or value.get("registered_name") not in (None, name):
            raise ValueError(f"{module}.{name} is not one of the layers in safety.py")
    if value.get("unroll") or len(value.get("layers") or ()) > MAX_LAYERS:
        raise ValueError(f"it has an unrolled layer, or more than {MAX_LAYERS} layers")
    for item in value.values():
        check_config(item)


def held_bytes(weights: h5py.File, most: int) -> int:
    """Return how many bytes the arrays of a file of weights have; refuse all but plain ones."""
    waiting, total, seen = [weights], 0, 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if seen > MAX_ITEMS or not isinstance(item, h5py.Group | h5py.Dataset):
                raise ValueError(f"{name} among the weights is a link, or one item too many")
            if isinstance(item, h5py.Group):
                waiting.append(item)
                continue
            if item.chunks or item.external or item.is_virtual or item.dtype.kind not in "fiu":
                raise ValueError(f"{name} among the weights is not a plain array")
            total += item.nbytes
            if total > most:
                raise ValueError("it claims more bytes of weights than it holds")
            if not np.isfinite(item[()]).all():
                raise ValueError("it has weights that are not finite")
    return total


def check_size(config: dict[str, Any], held: int) -> None:
    """Refuse a model with more weights than its file holds, by building it without any."""
    try:
        with keras.StatelessScope(initialize_variables=False):  # shapes, no values
            model = keras.saving.deserialize_keras_object(
                config | {"compile_config": None}, safe_mode=True
            )
    finally:  # or the next scope that ends would give these variables values
        global_state.set_global_attribute("uninitialized_variables", [])
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError("it is not a Sequential model with a known input")
    needed = sum(math.prod(variable.shape) for variable in model.weights) * WEIGHT_SIZE
    if needed > held:
        raise ValueError(f"it describes {needed} bytes of weights and holds {held}")
    for layer in model.layers:
        if math.prod(layer.output.shape[1:]) > MAX_OUTPUT:
            raise ValueError(f"{layer.name} makes more than {MAX_OUTPUT} values of an image")
