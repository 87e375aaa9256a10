"""Check a model file before Keras opens it.

Keras's safe mode refuses pickled functions, but builds any other object that a file names, of any
size. We accept only files with plain layers, complete weights and no other members: no code to run,
no decompression bomb, no path to write to.
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
from keras.src.models.functional import Functional

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, "metadata.json", WEIGHTS}
MAX_FILE = 2**28  # bytes: 67 million weights
MAX_CONFIG = 2**20  # bytes
MAX_LAYERS = 200
MAX_OUTPUT = 2**24  # values of one layer for one image
MAX_ITEMS = 10_000  # groups and arrays among the weights
WEIGHT_SIZE = 4  # bytes, float32
LAYERS = {
    "Activation", "AveragePooling2D", "AveragePooling3D", "BatchNormalization", "Bidirectional",
    "Concatenate", "Conv1D", "Conv2D", "Conv3D", "ConvLSTM1D", "ConvLSTM2D", "Dense",
    "DepthwiseConv2D", "Dropout", "Flatten", "GRU", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "LSTM", "LayerNormalization",
    "MaxPooling2D", "MaxPooling3D", "Permute", "ReLU", "Rescaling", "Reshape", "SeparableConv2D",
    "SimpleRNN", "SpatialDropout2D",
}  # fmt: skip
INITIALIZERS = {
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
    "Ones", "Orthogonal", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling",
    "Zeros",
}  # fmt: skip
ALLOWED = {
    None: {"__keras_tensor__"},  # the inputs of a layer in a functional model
    "keras": {"DTypePolicy", "Sequential"},
    "keras.initializers": INITIALIZERS,
    "keras.layers": LAYERS,
    "keras.regularizers": {"L1", "L1L2", "L2"},
    "keras.src.models.functional": {"Functional"},
}


def check_archive(path: Path) -> None:
    """Refuse a model file that contains more than a plain model.

    Raises
    ------
    ValueError
        The reason.
    Exception
        The readers of ZIP, JSON, HDF5 and Keras raise many types on a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        if set(infos) != MEMBERS or len(infos) != len(archive.infolist()):
            raise ValueError(f"it should hold {', '.join(sorted(MEMBERS))} and nothing else")
        if path.stat().st_size > MAX_FILE or infos[CONFIG].file_size > MAX_CONFIG:
            raise ValueError(f"it is larger than {MAX_FILE} bytes, or {CONFIG} than {MAX_CONFIG}")
        for info in infos.values():  # Keras compresses nothing
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename} is compressed")
        config = json.loads(archive.read(CONFIG))
        check_config(config)
        content = archive.read(WEIGHTS)
    with h5py.File(io.BytesIO(content), "r") as weights:
        held = held_bytes(weights, len(content))
    check_size(config, held)


def check_config(value: Any) -> None:
    """Refuse any object, at any depth of a model's description, whose class is not allowed."""
    if isinstance(value, list):
        for item in value:
            check_config(item)
    if not isinstance(value, dict):
        return
    if "class_name" in value:
        module, name = value.get("module"), value["class_name"]
        if name not in ALLOWED.get(module, ()) or value.get("registered_name") not in (None, name):
            raise ValueError(f"{module}.{name} is not allowed in stages/models/shared/safety.py")
    if value.get("unroll") or len(value.get("layers") or ()) > MAX_LAYERS:
        raise ValueError(f"it has an unrolled layer, or more than {MAX_LAYERS} layers")
    for item in value.values():
        check_config(item)


def held_bytes(weights: h5py.File, most: int) -> int:
    """Return the size in bytes of all arrays in a weights file. Refuse unusual arrays and links."""
    waiting, total, seen = [weights], 0, 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            if seen > MAX_ITEMS or not isinstance(item, h5py.Group | h5py.Dataset):
                raise ValueError(f"{name} in the weights file is a link, or one item too many")
            if isinstance(item, h5py.Group):
                waiting.append(item)
                continue
            if item.chunks or item.external or item.is_virtual or item.dtype.kind not in "fiu":
                raise ValueError(f"{name} in the weights file is not an ordinary array")
            total += item.nbytes
            if total > most:
                raise ValueError("it claims more bytes of weights than it has")
            if not np.isfinite(item[()]).all():
                raise ValueError("it has weights that are NaN or infinite")
    return total


def check_size(config: dict[str, Any], held: int) -> None:
    """Refuse a model that describes more weights than its file has. Builds it without values."""
    try:
        with keras.StatelessScope(initialize_variables=False):  # shapes, no values
            model = keras.saving.deserialize_keras_object(
                config | {"compile_config": None}, safe_mode=True
            )
    finally:  # otherwise the next scope that ends would give these variables values
        global_state.set_global_attribute("uninitialized_variables", [])
    check_shapes(model, held)


def check_model(model: keras.Model) -> None:
    """Refuse a model whose file `check_archive` would refuse."""
    check_config(keras.saving.serialize_keras_object(model))
    check_shapes(model, MAX_FILE)


def check_shapes(model: keras.Model, most: int) -> None:
    """Raise an error if a layer has an unexpected shape or the weights exceed `most` bytes."""
    if not isinstance(model, keras.Sequential | Functional) or not model.built:
        raise ValueError("it is not a Sequential or functional model with a known input")
    for layer in model.layers:
        if math.prod(layer.output.shape[1:]) > MAX_OUTPUT:
            raise ValueError(f"{layer.name} returns more than {MAX_OUTPUT} values per image")
    needed = sum(math.prod(variable.shape) for variable in model.weights) * WEIGHT_SIZE
    if needed > most:
        raise ValueError(f"its weights need {needed} bytes; the file or the limit has only {most}")
