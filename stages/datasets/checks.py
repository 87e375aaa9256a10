"""Look for duplicates, wrong labels and rare classes in prepared data, and draw a contact sheet."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from stages.datasets.splits import Parts

TITLES = {"train": "training", "val": "validation", "test": "test"}
WARNING = "warning: "  # the start of messages about data that make results wrong
FEW = 10  # training images of a class
UNBALANCED = 3  # the largest class has so many times the images of the smallest
ROWS, COLUMNS = 100, 12  # of the contact sheet: classes, images of each
NAMED = 3  # classes in a message


def check(parts: Parts, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return what is noticeable about the parts of a dataset.

    Returns
    -------
    dict
        - ``duplicates``: for each part, images equal to an earlier one of it; for two parts, as
          ``train_test``, images of the second that are also in the first
        - ``conflicting_labels``: images equal to one with another label, in all parts
        - ``constant_images``: images of one value
        - ``small_classes``: training images of the classes with fewer than `FEW`
        - ``imbalance``: training images of the largest class per image of the smallest
        - ``messages``: the same as sentences; those that start with ``warning:`` make results wrong
    """
    keys = {part: _keys(x) for part, (x, _) in parts.items()}
    first = {part: set(found) for part, found in keys.items()}
    duplicates = {part: len(found) - len(first[part]) for part, found in keys.items()}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        duplicates[f"{one}_{other}"] = sum(key in first[one] for key in keys[other])
    counts = np.bincount(parts["train"][1], minlength=len(class_names))
    facts: dict[str, Any] = {
        "duplicates": duplicates,
        "conflicting_labels": _conflicts(keys, parts),
        "constant_images": sum(_constant(x) for x, _ in parts.values()),
        "small_classes": {
            name: int(count) for name, count in zip(class_names, counts, strict=True) if count < FEW
        },
        "imbalance": round(float(counts.max() / counts.min()), 2),
    }
    images = {part: len(y) for part, (_, y) in parts.items()}
    return facts | {"messages": _messages(facts, images)}


def _keys(x: np.ndarray) -> list[bytes]:
    """Return a hash of each image."""
    x = np.ascontiguousarray(x)
    return [hashlib.blake2b(image, digest_size=16).digest() for image in x]


def _conflicts(keys: dict[str, list[bytes]], parts: Parts) -> int:
    """Return the number of images that equal an image with another label."""
    labels: dict[bytes, int] = {}
    mixed: set[bytes] = set()
    for part, found in keys.items():
        for key, label in zip(found, parts[part][1].tolist(), strict=True):
            if labels.setdefault(key, label) != label:
                mixed.add(key)
    return sum(key in mixed for found in keys.values() for key in found) if mixed else 0


def _constant(x: np.ndarray) -> int:
    axes = tuple(range(1, x.ndim))
    return int((x.min(axis=axes) == x.max(axis=axes)).sum())


def _messages(facts: dict[str, Any], images: dict[str, int]) -> list[str]:
    """Return a sentence for each noticeable fact."""
    duplicates = facts["duplicates"]
    said = [
        f"{WARNING}{count:,} of {images[part]:,} {TITLES[part]} images are also in the training "
        f"set; the {TITLES[part]} accuracy is too high"
        for part in ("test", "val")
        if (count := duplicates[f"train_{part}"])
    ]
    if count := duplicates["val_test"]:
        said.append(f"{count:,} of {images['test']:,} test images are also in the validation set")
    said += [
        f"{count:,} of {images[part]:,} {TITLES[part]} images equal another one of this part"
        for part in images
        if (count := duplicates[part])
    ]
    if count := facts["conflicting_labels"]:
        said.append(f"{WARNING}{count:,} equal images have different labels")
    if count := facts["constant_images"]:
        said.append(f"{count:,} images have one value everywhere")
    if small := facts["small_classes"]:
        some = ", ".join(f"{name!r} ({count})" for name, count in list(small.items())[:NAMED])
        some += ", …" if len(small) > NAMED else ""
        said.append(f"classes with fewer than {FEW} training images: {some}")
    if facts["imbalance"] > UNBALANCED:
        said.append(
            f"the largest class has {facts['imbalance']:g} times as many training images as the "
            "smallest"
        )
    return said


def contact_sheet(parts: Parts, classes: int) -> np.ndarray:
    """Return the first training images of the first classes, one class per row.

    Returns
    -------
    numpy.ndarray
        uint8 (classes, at most `ROWS`; `COLUMNS`; image axes …). Places without an image are 0.
    """
    x, y = parts["train"]
    sheet = np.zeros((min(classes, ROWS), COLUMNS, *x.shape[1:]), np.uint8)
    for row in range(len(sheet)):
        found = np.flatnonzero(y == row)[:COLUMNS]
        sheet[row, : len(found)] = x[found]
    return sheet
