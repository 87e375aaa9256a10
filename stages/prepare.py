"""Stage `prepare`: load and check the raw data, split off validation images, store arrays.

    python -m stages.prepare

Reads `dataset` and `prepare.*`. Writes `data/prepared/`: `x_train.npy`, `y_train.npy`, the same for
`val` and `test`, and `manifest.json` with class names, counts and digests. Validation images are a
stratified part of the training set. The test set is stored unchanged.
"""

from __future__ import annotations

import shutil

import numpy as np

from stages.common.arrays import PREPARED
from stages.common.cli import run
from stages.common.files import temporary_folder, write_json
from stages.common.params import load_params
from stages.datasets.catalog import load_dataset
from stages.datasets.splits import manifest, split


def main() -> None:
    params = load_params()
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

    shape = "×".join(map(str, facts["image_shape"]))
    print(f"{params.dataset}: {shape}, {len(dataset.class_names)} classes")
    for part, counts in facts["splits"].items():
        each = " ".join(str(count) for count in counts["per_class"])
        print(f"  {part:5} {counts['images']:6} images  per class {each}")
        print(f"        x {counts['x_sha256'][:16]}…  y {counts['y_sha256'][:16]}…")


if __name__ == "__main__":
    run(main)
