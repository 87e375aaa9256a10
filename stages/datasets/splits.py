"""Split off validation images, and describe the parts in a manifest."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

from stages.common.arrays import array_digest
from stages.common.cli import StageError
from stages.datasets.labelled_images import Dataset


def split(
    dataset: Dataset, val_fraction: float, split_seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split the training set, stratified by class, into training and validation part.

    Returns
    -------
    dict
        Images and labels of ``train``, ``val`` and ``test``, in their original order.

    Raises
    ------
    StageError
        A class would have no image in one of the parts.
    """
    y = dataset.y_train
    counts = np.bincount(y, minlength=len(dataset.class_names))
    try:
        train, val = train_test_split(
            np.arange(len(y)), test_size=val_fraction, stratify=y, random_state=split_seed
        )
    except ValueError:  # a class has one image, or a part fewer images than classes
        train = val = np.arange(0)
    for indices in (train, val):
        left = np.bincount(y[indices], minlength=len(dataset.class_names))
        if (left == 0).any():
            rare = int(np.argmin(np.where(left == 0, counts, len(y))))
            raise StageError(
                f"class {dataset.class_names[rare]!r} has too few training images "
                f"({counts[rare]}) to split at prepare.val_fraction={val_fraction}"
            )
    train, val = np.sort(train), np.sort(val)
    return {
        "train": (dataset.x_train[train], y[train]),
        "val": (dataset.x_train[val], y[val]),
        "test": (dataset.x_test, dataset.y_test),
    }


def manifest(name: str, class_names: tuple[str, ...], parts: dict) -> dict:
    """Return the manifest of prepared arrays: shapes, class names, counts and SHA-256 digests."""
    return {
        "dataset": name,
        "image_shape": list(parts["train"][0].shape[1:]),
        "class_names": list(class_names),
        "splits": {
            part: {
                "images": len(y),
                "per_class": np.bincount(y, minlength=len(class_names)).tolist(),
                "x_sha256": array_digest(x),
                "y_sha256": array_digest(y),
            }
            for part, (x, y) in parts.items()
        },
    }
