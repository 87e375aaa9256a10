"""Split off test and validation images, and describe the parts in a manifest."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

from stages.common.arrays import array_digest
from stages.common.cli import StageError
from stages.common.params import Prepare
from stages.datasets.labelled_images import PARTS, Dataset

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


def split(dataset: Dataset, prepare: Prepare) -> Parts:
    """Return the parts of a dataset. Missing ones are taken from the training set, stratified.

    Own data are shuffled, because a file is often sorted by class and batches are normalized in
    parts. They are shuffled in place, without a copy: afterwards, use the result only. The other
    datasets keep their order, and their arrays.

    Returns
    -------
    dict
        Images and labels of ``train``, ``val`` and ``test``.

    Raises
    ------
    StageError
        A class would have no image in one of the parts.
    """
    y, seed, own = dataset.y_train, prepare.split_seed, dataset.own
    random = np.random.default_rng(seed)
    rest = random.permutation(len(y)) if own else np.arange(len(y))
    taken: dict[str, np.ndarray] = {}
    for part, given, fraction in (
        ("test", dataset.y_test, "test_fraction"),
        ("val", dataset.y_val, "val_fraction"),
    ):
        if given is None:
            share = getattr(prepare, fraction)
            rest, taken[part] = _divided(
                dataset, rest, share, seed, f"split at prepare.{fraction}={share}"
            )
    unused = np.arange(0)
    if prepare.train_images > len(rest):
        raise StageError(
            f"prepare.train_images is {prepare.train_images}, but the training set has {len(rest)} "
            "images; 0 takes all"
        )
    if 0 < prepare.train_images < len(rest):
        left_out = len(rest) - prepare.train_images
        why = f"take prepare.train_images={prepare.train_images} of {len(rest)}"
        rest, unused = _divided(dataset, rest, left_out, seed, why, every_class_in_both=False)
    taken = {"train": rest} | taken
    parts: Parts = {}
    if own:
        order = np.concatenate([*taken.values(), unused])
        reorder(dataset.x_train, order)
        ends = np.cumsum([len(indices) for indices in taken.values()])
        for (part, indices), end in zip(taken.items(), ends, strict=True):
            parts[part] = (dataset.x_train[end - len(indices) : end], y[indices])
        for part, x_given, y_given in (
            ("val", dataset.x_val, dataset.y_val),
            ("test", dataset.x_test, dataset.y_test),
        ):
            if y_given is not None:
                order = random.permutation(len(y_given))
                reorder(x_given, order)
                parts[part] = (x_given, y_given[order])
    else:
        taken = {part: np.sort(indices) for part, indices in taken.items()}
        parts = {part: (dataset.x_train[indices], y[indices]) for part, indices in taken.items()}
        parts["test"] = (dataset.x_test, dataset.y_test)
    return {part: parts[part] for part in PARTS}


def _divided(
    dataset: Dataset,
    indices: np.ndarray,
    size: float,
    seed: int,
    why: str,
    every_class_in_both: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Divide indices of the training set, stratified by class. The second part has `size`.

    A whole number is a count, another number a fraction.
    """
    y = dataset.y_train[indices]
    counts = np.bincount(y, minlength=len(dataset.class_names))
    try:
        kept, taken = train_test_split(indices, test_size=size, stratify=y, random_state=seed)
    except ValueError:  # a class has one image, or a part fewer images than classes
        kept = taken = np.arange(0)
    for part in (kept, taken) if every_class_in_both else (kept,):
        left = np.bincount(dataset.y_train[part], minlength=len(dataset.class_names))
        if (left == 0).any():
            rare = int(np.argmin(np.where(left == 0, counts, len(y))))
            raise StageError(
                f"class {dataset.class_names[rare]!r} has too few training images "
                f"({counts[rare]}) to {why}"
            )
    return kept, taken


def reorder(x: np.ndarray, order: np.ndarray) -> None:
    """Set `x` to `x[order]` without a copy, for a permutation `order`: follow its cycles."""
    done = np.zeros(len(order), bool)
    follow = order.tolist()
    for start in range(len(follow)):
        if done[start]:
            continue
        first, at = x[start].copy(), start
        while follow[at] != start:
            x[at] = x[follow[at]]
            done[at] = True
            at = follow[at]
        x[at] = first
        done[at] = True


def manifest(name: str, class_names: tuple[str, ...], parts: Parts) -> dict:
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
