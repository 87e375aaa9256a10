"""Load and check a user's own data from an `.npz` file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from stages.common.cli import StageError
from stages.datasets.containers import read_npz
from stages.datasets.labelled_images import SPLIT_ARRAYS, Dataset

MAX_NAME = 200  # characters of a class name
JOINERS = {0x200C: None, 0x200D: None}  # unprintable, but part of Persian, Hindi and emoji


def load_npz(path: Path) -> Dataset:
    """Return the dataset in a user's `.npz` file.

    Images are integers in 0..255 of shape (n, height, width) or (n, height, width, 1 or 3), and
    sequences of images (n, time, height, width, 1 or 3). Labels are integers from 0. Each class
    needs a training image. Classes without names are numbered.

    Raises
    ------
    StageError
        The file, or one of its arrays, is missing, damaged or not as described here.
    """
    arrays = read_npz(path, SPLIT_ARRAYS, optional=("class_names",))
    x_train, y_train = _images(arrays, "x_train", path), _labels(arrays, "y_train", path)
    x_test, y_test = _images(arrays, "x_test", path), _labels(arrays, "y_test", path)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise StageError(f"{path}: x_{part} has {len(x)} images, y_{part} {len(y)} labels")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise StageError(
            f"{path}: the images differ in size: {x_train.shape[1:]} in x_train, "
            f"{x_test.shape[1:]} in x_test"
        )
    classes = int(max(y_train.max(), y_test.max())) + 1
    names = arrays.get("class_names")
    class_names = (
        tuple(str(i) for i in range(classes))
        if names is None
        else _class_names(names, y_train, path)
    )
    if len(class_names) < max(classes, 2):
        raise StageError(
            f"{path}: {len(class_names)} classes are named, but the labels go up to {classes - 1}"
            if names is not None
            else f"{path}: the labels have only one class; there is nothing to classify"
        )
    counts = np.bincount(y_train, minlength=len(class_names))
    if (counts == 0).any():
        raise StageError(
            f"{path}: class {class_names[int(np.argmin(counts))]!r} has no training image"
        )
    return Dataset(x_train, y_train, x_test, y_test, class_names)


def _class_names(names: np.ndarray, y_train: np.ndarray, path: Path) -> tuple[str, ...]:
    """Return class names, checked to be printable, distinct text."""
    if names.dtype.kind not in "USiu" or names.ndim != 1 or len(names) > len(y_train):
        raise StageError(f"{path}: class_names should be a list of text, one for each label")
    if not 0 < names.dtype.itemsize <= 4 * MAX_NAME:  # UTF-32
        raise StageError(f"{path}: a class name is empty or has more than {MAX_NAME} characters")
    codes = names.view(names.dtype.str[0] + ("u4" if names.dtype.kind == "U" else "u1"))
    try:
        if codes.max() > sys.maxunicode:  # invalid code points crash Python
            raise ValueError
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except ValueError:  # not valid text
        raise StageError(f"{path}: class_names must contain text only") from None
    for text in texts:
        if not text.strip() or not text.translate(JOINERS).isprintable():
            raise StageError(
                f"{path}: the class name {text!r} should have printable characters only"
            )
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise StageError(f"{path}: two classes are named {twice!r}")
    return tuple(texts)


def _images(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    """Return an array of images or sequences as uint8, with a channel axis, checked."""
    x = arrays[key]
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim not in (4, 5) or x.shape[-1] not in (1, 3) or 0 in x.shape:
        raise StageError(
            f"{path}: {key} has the shape {arrays[key].shape}; expected (images, height, width), "
            f"(images, height, width, 1 or 3) or (sequences, time, height, width, 1 or 3)"
        )
    if x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255:
        raise StageError(f"{path}: {key} ({x.dtype}) should hold whole numbers from 0 to 255")
    return np.ascontiguousarray(x, dtype=np.uint8)


def _labels(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    """Return an array of labels as int32 (n,), checked."""
    y = arrays[key]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise StageError(f"{path}: {key} should be a list of whole numbers, one for each image")
    if y.min() < 0 or y.max() >= len(arrays["y_train"]):
        raise StageError(
            f"{path}: {key} goes from {y.min()} to {y.max()}; labels are numbered from 0 "
            f"and each class needs an image"
        )
    return y.astype(np.int32)
