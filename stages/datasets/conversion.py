"""Convert a user's arrays into uint8 images and int32 labels, and note what was done."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.common.cli import StageError
from stages.datasets.labelled_images import Source
from stages.datasets.picture_folders import AMBIGUOUS, MOST, natural, resized

CHANNELS = (1, 3, 4)  # grey; red, green, blue; the same with opacity
BLOCK = 2**24  # values converted at once
TOLERANCE = 1e-3  # rounding errors of scaled floating-point images
SHOWN = 4  # labels in a message
MAX_NAME = 200  # characters of a class name
JOINERS = {0x200C: None, 0x200D: None}  # unprintable, but part of Persian, Hindi and emoji


# --- images -------------------------------------------------------------------------------


def as_images(
    source: Source,
    *,
    image_size: int,
    transpose: bool,
    channels: Literal["auto", "first", "last"],
    white: int,
) -> dict[str, np.ndarray]:
    """Return the images of each part as uint8 (n, …, height, width, channels) in own memory.

    Raises
    ------
    StageError
        The shape or the values of an array have no reading, or more than one.
    """
    order = "last" if source.channels_last else channels
    x = {part: _with_axes(source, part, order) for part in source.parts}
    shape = x["train"].shape[1:]
    for part, images in x.items():
        if images.shape[1:] != shape:
            raise StageError(
                f"{source.path}: the images differ in size: {shape} in {source.titles['x_train']}, "
                f"{images.shape[1:]} in {source.titles[f'x_{part}']}"
            )
    low, high = _scale(source, x, white)
    if transpose:
        x = {part: images.swapaxes(-3, -2) for part, images in x.items()}
        source.notes.append("rows and columns were swapped (prepare.transpose)")
    height, width = x["train"].shape[-3:-1]
    size = image_size if image_size and (height, width) != (image_size, image_size) else 0
    if size:
        source.notes.append(f"images of {height}×{width} pixels were resized to {size}×{size}")
    return {part: _as_bytes(images, low, high, size) for part, images in x.items()}


def _with_axes(source: Source, part: str, order: str) -> np.ndarray:
    """Return the images of a part as a view (n, …, height, width, channels)."""
    x, title = source.arrays[f"x_{part}"], source.titles[f"x_{part}"]
    where = f"{source.path}: {title}"
    if x.ndim < 2 or 0 in x.shape:
        raise StageError(f"{where} has the shape {x.shape}; (images, height, width) is expected")
    if x.dtype.kind not in "biuf":
        raise StageError(f"{where} ({x.dtype}) should hold numbers")
    # (n, 784, 1) has rows of pixels, too
    if x.ndim == 2 or (x.ndim == 3 and 1 in x.shape[1:] and _is_square(math.prod(x.shape[1:]))):
        x = _unflattened(x.reshape(len(x), -1), where, order)
        if part == "train":
            source.notes.append(
                f"{math.prod(x.shape[1:])} values per image became "
                f"{x.shape[1]}×{x.shape[2]} pixels"
                f"{' of 3 colours' if x.shape[3] == 3 else ''}"
            )
        return x
    if x.ndim == 3:
        return x[..., None]
    first, last = x.shape[-3] in CHANNELS, x.shape[-1] in CHANNELS
    if order == "auto" and first and last:
        raise StageError(
            f"{where} has the shape {x.shape}: its channels can be the first or the last axis of "
            "an image; set prepare.channels=first or last"
        )
    if not (last if order == "last" else first if order == "first" else first or last):
        hint = "" if order == "auto" else f" (prepare.channels is {order})"
        raise StageError(
            f"{where} has the shape {x.shape}: no axis has the length 1, 3 or 4, as channels do"
            f"{hint}; expected (images, height, width, channels), and for sequences (images, time, "
            "height, width, channels)"
        )
    if order == "last" or (last and not first):
        return x
    if part == "train":
        source.notes.append("channels came first; they were moved to the end")
    return np.moveaxis(x, -3, -1)


def _unflattened(x: np.ndarray, where: str, order: str) -> np.ndarray:
    """Return images given as rows of pixels as a view (n, side, side, 1 or 3)."""
    n, values = x.shape
    for colours in (1, 3):
        if values % colours or not _is_square(values // colours):
            continue
        side = math.isqrt(values // colours)
        if colours == 1 or order == "last":
            return x.reshape(n, side, side, colours)
        if order == "auto":
            raise StageError(
                f"{where}: {values} values are {side}×{side} pixels, one colour after the other "
                "or three colours per pixel; set prepare.channels=first or last"
            )
        return np.moveaxis(x.reshape(n, colours, side, side), 1, -1)
    raise StageError(f"{where}: {values} values per image are not a square picture")


def _is_square(values: int) -> bool:
    return math.isqrt(values) ** 2 == values


@dataclass
class Values:
    """What the values of an array are: limits, and whether all are whole numbers."""

    low: float
    high: float
    whole: bool


def _values(x: np.ndarray, where: str) -> Values:
    """Look at all values of an array, in blocks."""
    low, high, whole = math.inf, -math.inf, True
    for start, block in _blocks(x):
        if block.dtype.kind == "f":
            finite = np.isfinite(block.reshape(len(block), -1)).all(axis=1)
            if not finite.all():
                raise StageError(
                    f"{where}: image {start + int(np.argmin(finite))} (from 0) has a value that is "
                    "not a number (NaN or infinite)"
                )
            whole = whole and bool((block == np.rint(block)).all())
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    return Values(low, high, whole)


def _scale(source: Source, x: dict[str, np.ndarray], white: int) -> tuple[float, float]:
    """Return which values are black and white, and note what will be done with them."""
    found = {
        part: _values(images, f"{source.path}: {source.titles[f'x_{part}']}")
        for part, images in x.items()
    }
    low, high = min(each.low for each in found.values()), max(each.high for each in found.values())
    whole = all(each.whole for each in found.values())
    where, spread = f"{source.path}: the images' values", f"from {low:g} to {high:g}"
    kind = x["train"].dtype
    if white:
        if low < 0 or high > white:
            raise StageError(
                f"{where}: values go {spread}, but prepare.white is {white}; set it to the value "
                "of white"
            )
        scale = (0.0, float(white))
    elif kind.kind == "b":
        scale = (0.0, 1.0)
    else:
        scale = _known_scale(low, high, whole, f"{where} ({kind}) go {spread}")
    if scale[1] > 1:
        for part, each in found.items():
            fractions = scale == (0, 255) and not each.whole and each.high < 128
            if 0 < each.high <= 1 or fractions:
                raise StageError(
                    f"{where} differ in scale: {source.titles[f'x_{part}']} goes to {each.high:g}, "
                    f"others to {high:g}"
                )
    if scale != (0, 255):
        source.notes.append(f"values of {scale[0]:g} to {scale[1]:g} ({kind}) became 0 to 255")
    elif not whole:
        source.notes.append(f"values of 0 to 255 ({kind}) were rounded to whole numbers")
    elif high < 128 and not white:
        source.notes.append(
            f"warning: the largest value of the images is {high:g}; if that is white, set "
            f"prepare.white={high:g}"
        )
    return scale


def _known_scale(low: float, high: float, whole: bool, said: str) -> tuple[float, float]:
    """Return black and white of images whose values go from `low` to `high`."""
    near = 1 + TOLERANCE
    if high <= near and low >= -TOLERANCE:
        return (0.0, 1.0) if high > 0 else (0.0, 255.0)  # all black
    if -near <= low <= -0.5 and high <= near:
        return (-1.0, 1.0)
    if low >= 0 and high <= 255 and (whole or high >= 128):
        return (0.0, 255.0)
    if whole and low >= 0 and 4096 <= high <= MOST:
        return (0.0, float(MOST))
    if whole and low >= 0 and high < 4096:
        raise StageError(f"{said}: {AMBIGUOUS}")
    raise StageError(
        f"{said}, which fits no known scale; expected 0 to 255, 0 to 1, −1 to 1 or 0 to 65535"
        + ("; give images before they are standardized" if low < 0 else "")
    )


def _blocks(x: np.ndarray):
    """Yield the start and the images of blocks of about `BLOCK` values."""
    each = max(1, BLOCK // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), each):
        yield start, x[start : start + each]


def _as_bytes(x: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """Return images as uint8 in their own contiguous memory, `low` … `high` scaled to 0 … 255."""
    usable = x.flags.c_contiguous and x.flags.writeable
    if x.dtype == np.uint8 and (low, high) == (0, 255) and usable and not size:
        return x
    shape = (*x.shape[:-3], size or x.shape[-3], size or x.shape[-2], x.shape[-1])
    made = np.empty(shape, np.uint8)
    for start, block in _blocks(x):
        if (low, high) != (0, 255) or block.dtype.kind == "f":
            scaled = (block.astype(np.float32) - low) * np.float32(255 / (high - low))
            values = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
        else:
            values = block.astype(np.uint8)
        made[start : start + len(block)] = _smaller(values, size) if size else values
    return made


def _smaller(x: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 images resized to `size` × `size`, one plane after the other."""
    from PIL import Image

    made = np.empty((*x.shape[:-3], size, size, x.shape[-1]), np.uint8)
    for index in np.ndindex(*x.shape[:-3]):
        for channel in range(x.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(x[(*index, ..., channel)]))
            made[(*index, ..., channel)] = np.asarray(resized(plane, size))
    return made


# --- labels -------------------------------------------------------------------------------


def as_labels(source: Source) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the labels of each part as int32 classes from 0, and the names of the classes.

    Raises
    ------
    StageError
        An array is no list of labels, or a class has no training image.
    """
    y = {part: _flat(source, part) for part in source.parts}
    kinds = {part: labels.dtype.kind for part, labels in y.items()}
    if len(set(kinds.values())) > 1:
        raise StageError(f"{source.path}: the labels are text in one part and numbers in another")
    named = source.class_names is not None
    if named:
        y, class_names = _numbered(source, y)
    else:
        y, class_names = _counted(source, y)
    if len(class_names) < 2:
        raise StageError(
            f"{source.path}: the labels have only one class; there is nothing to classify"
        )
    counts = np.bincount(y["train"], minlength=len(class_names))
    if (counts == 0).any():
        name = class_names[int(np.argmin(counts))]
        raise StageError(f"{source.path}: class {name!r} has no training image")
    return {part: labels.astype(np.int32) for part, labels in y.items()}, class_names


def _flat(source: Source, part: str) -> np.ndarray:
    """Return the labels of a part as integers (n,) or text (n,), checked."""
    y, where = source.arrays[f"y_{part}"], f"{source.path}: {source.titles[f'y_{part}']}"
    x = source.arrays[f"x_{part}"]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or y.dtype.kind not in "biufSU" or not len(y):
        raise StageError(
            f"{where} has the shape {y.shape} ({y.dtype}); expected one label per image: a number, "
            "a text, or a row with a single 1"
        )
    if x.ndim and len(y) != len(x):
        title = source.titles[f"x_{part}"]
        raise StageError(f"{where} has {len(y)} labels, {title} has {len(x)} images")
    if y.ndim == 2:
        return _hot(y, where, source.notes if part == "train" else [])
    if y.dtype.kind in "SU":
        return _texts(y, where)
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.rint(y)) & (np.abs(y) < 2**53)
        if not whole.all():
            bad = int(np.argmin(whole))
            raise StageError(f"{where}: label {bad} (from 0) is {y[bad]}, not a whole number")
    if y.dtype == np.uint64 and y.max() >= 2**63:
        raise StageError(f"{where}: the label {y.max()} is too large")
    return y.astype(np.int64)


def _hot(y: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    """Return one-hot rows as numbers."""
    if y.dtype.kind in "SU" or not y.shape[1]:
        raise StageError(
            f"{where} has the shape {y.shape} ({y.dtype}); expected one label per image"
        )
    right = ((y == 0) | (y == 1)).all(axis=1) & ((y == 1).sum(axis=1) == 1)
    if not right.all():
        raise StageError(
            f"{where} has the shape {y.shape}, but row {int(np.argmin(right))} (from 0) does not "
            "have a single 1; images with several labels or none cannot be classified"
        )
    notes.append(f"one-hot labels of {y.shape[1]} classes became numbers")
    return np.argmax(y, axis=1)


def _texts(y: np.ndarray, where: str) -> np.ndarray:
    """Return text labels without white space around them."""
    if not 0 < y.dtype.itemsize <= 4 * MAX_NAME:  # UTF-32
        raise StageError(f"{where} has empty texts or texts of more than {MAX_NAME} characters")
    try:
        codes = np.ascontiguousarray(y).view("u4" if y.dtype.kind == "U" else "u1")
        if y.dtype.kind == "U" and codes.size and codes.max() > sys.maxunicode:
            raise ValueError  # invalid code points crash Python
        texts = [t.decode() if isinstance(t, bytes) else t for t in y.tolist()]
        return np.array([text.strip() for text in texts], dtype=str)
    except (ValueError, TypeError):
        raise StageError(f"{where} should contain text only") from None


def _counted(
    source: Source, y: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Number the labels of the training set from 0. The classes are named after the labels."""
    values = np.unique(y["train"])
    texts = [str(value) for value in values.tolist()]
    if values.dtype.kind == "U":
        order = sorted(range(len(texts)), key=lambda i: natural(texts[i]))
        rank = np.argsort(order)
    else:
        rank = order = np.arange(len(values))
    numbered = {}
    for part, labels in y.items():
        at = np.minimum(np.searchsorted(values, labels), len(values) - 1)
        known = values[at] == labels
        if not known.all():
            unknown = labels[int(np.argmin(known))]
            raise StageError(f"{source.path}: class {str(unknown)!r} has no training image")
        numbered[part] = rank[at]
    names = checked_names([texts[i] for i in order], source)
    if names != tuple(str(i) for i in range(len(names))) or values.dtype.kind == "U":
        some = ", ".join(map(repr if values.dtype.kind == "U" else str, names[:SHOWN]))
        some += ", …" if len(names) > SHOWN else ""
        if values.dtype.kind != "U" and len(values) == values[-1] - values[0] + 1:
            some = f"{names[0]}–{names[-1]}"
        source.notes.append(
            f"labels {some} became classes 0–{len(names) - 1}, named after the labels"
        )
    return numbered, names


def _numbered(
    source: Source, y: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return labels that are positions in the source's list of class names, from 0 or from 1."""
    names = class_names(source, len(y["train"]))
    if y["train"].dtype.kind == "U":
        at = {name: i for i, name in enumerate(names)}
        for labels in y.values():
            for label in np.unique(labels).tolist():
                if label not in at:
                    raise StageError(f"{source.path}: the label {label!r} is not in class_names")
        y = {part: np.array([at[t] for t in labels.tolist()]) for part, labels in y.items()}
        return y, names
    low = min(int(labels.min()) for labels in y.values())
    high = max(int(labels.max()) for labels in y.values())
    if low == 1 and high == len(names):
        source.notes.append(f"labels 1–{high} became classes 0–{high - 1}")
        return {part: labels - 1 for part, labels in y.items()}, names
    if low < 0 or high >= len(names):
        raise StageError(
            f"{source.path}: {len(names)} classes are named, but the labels go from {low} to {high}"
        )
    return y, names


def class_names(source: Source, most: int) -> tuple[str, ...]:
    """Return the source's class names, checked to be a list of printable, distinct text."""
    names, path = source.class_names, source.path
    if names.dtype.kind not in "USiu" or names.ndim != 1 or len(names) > most:
        raise StageError(f"{path}: class_names should be a list of strings, one for each class")
    if names.dtype.kind in "US":
        names = _texts(names, f"{path}: class_names")
    return checked_names([str(name) for name in names.tolist()], source)


def checked_names(texts: list[str], source: Source) -> tuple[str, ...]:
    """Return class names, checked to be printable, distinct and short."""
    for text in texts:
        if not text or len(text) > MAX_NAME:
            raise StageError(
                f"{source.path}: a class name is empty or has more than {MAX_NAME} characters"
            )
        if not text.translate(JOINERS).isprintable():
            raise StageError(
                f"{source.path}: the class name {text!r} should have printable characters only"
            )
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise StageError(f"{source.path}: two classes are named {twice!r}")
    return tuple(texts)
