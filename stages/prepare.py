"""Stage `prepare`: raw data to arrays that every later stage maps into memory.

    python -m stages.prepare

Reads `dataset` and `prepare.*`; writes `data/prepared/`: `x_train.npy`, `y_train.npy`, the same
for `val` and `test`, and `manifest.json` with class names, counts and digests. Validation images
are a stratified part of the training set; the test set is left as it came.
"""

from __future__ import annotations

import shutil

import numpy as np
from sklearn.model_selection import train_test_split

from stages.datasets import Dataset, array_digest, load_dataset
from stages.files import StageError, run, temporary_folder, write_json
from stages.params import Params, load_params
from stages.prepared import PREPARED


def split(
    dataset: Dataset, val_fraction: float, split_seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return `{"train": (x, y), "val": …, "test": …}`, each in the order of its source.

    Raises
    ------
    StageError
        A class would have no image left in a part.
    """
    y = dataset.y_train
    counts = np.bincount(y, minlength=len(dataset.class_names))
    try:
        train, val = train_test_split(
            np.arange(len(y)), test_size=val_fraction, stratify=y, random_state=split_seed
        )
    except ValueError:  # a class of one image, or a part with fewer images than classes
        train = val = np.arange(0)
    for indices in (train, val):
        left = np.bincount(y[indices], minlength=len(dataset.class_names))
        if (left == 0).any():
            rare = int(np.argmin(np.where(left == 0, counts, len(y))))
            raise StageError(
                f"class {dataset.class_names[rare]!r} has {counts[rare]} of {len(y)} training "
                f"images, too few for both parts at prepare.val_fraction={val_fraction}"
            )
    train, val = np.sort(train), np.sort(val)
    return {
        "train": (dataset.x_train[train], y[train]),
        "val": (dataset.x_train[val], y[val]),
        "test": (dataset.x_test, dataset.y_test),
    }


def manifest(name: str, class_names: tuple[str, ...], parts: dict) -> dict:
    """Describe prepared arrays: what they are, how many of each class, and their digests."""
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


def main() -> None:
    params: Params = load_params()
    dataset = load_dataset(params.dataset)
    parts = split(dataset, params.prepare.val_fraction, params.prepare.split_seed)
    facts = manifest(params.dataset, dataset.class_names, parts)

    with temporary_folder(PREPARED.parent, ".prepared-") as folder:
        made = folder / PREPARED.name
        made.mkdir()
        for part, (x, y) in parts.items():
            np.save(made / f"x_{part}.npy", x)
            np.save(made / f"y_{part}.npy", y)
        write_json(made / "manifest.json", facts)
        shutil.rmtree(PREPARED, ignore_errors=True)
        made.rename(PREPARED)

    height, width, channels = facts["image_shape"]
    print(f"{params.dataset}: {height}×{width}×{channels}, {len(dataset.class_names)} classes")
    for part, counts in facts["splits"].items():
        each = " ".join(str(count) for count in counts["per_class"])
        print(f"  {part:5} {counts['images']:6} images  per class {each}")
        print(f"        x {counts['x_sha256'][:16]}…  y {counts['y_sha256'][:16]}…")


if __name__ == "__main__":
    run(main)
