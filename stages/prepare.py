"""Stage `prepare`: load and check the raw data, split off validation images, store arrays.

    python -m stages.prepare

Reads `dataset` and `prepare.*`, and a user's own data in `data/raw/`. Writes `data/prepared/`:

- `x_train.npy`, `y_train.npy`, the same for `val` and `test`. Parts that the source does not have
  are stratified parts of its training set. The test set of the built-in datasets stays unchanged;
  own data are shuffled.
- `manifest.json`: class names, counts and digests; `notes` says how own data were read; `checks`
  has duplicates, rare classes and the like (`stages.datasets.checks.check`).
- `contact_sheet.npy`: uint8 (classes, 12, …image), what the models will see: in each row the first
  12 training images of a class, at most 100 classes. Places without an image are 0.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from stages.common.arrays import PREPARED
from stages.common.files import temporary_folder, write_json
from stages.common.params import load_params
from stages.common.watched import run_stage
from stages.datasets.catalog import load_dataset
from stages.datasets.checks import WARNING, check, contact_sheet
from stages.datasets.own_data import untracked_note
from stages.datasets.splits import manifest, split


def main() -> None:
    params = load_params()
    dataset = load_dataset(params.dataset, params.prepare)
    parts = split(dataset, params.prepare)
    facts = manifest(params.dataset, dataset.class_names, parts)
    facts |= {"notes": list(dataset.notes), "checks": check(parts, dataset.class_names)}

    with temporary_folder(PREPARED.parent, ".prepared-") as folder:
        made = folder / PREPARED.name
        made.mkdir()
        for part, (x, y) in parts.items():
            np.save(made / f"x_{part}.npy", x)
            np.save(made / f"y_{part}.npy", y)
        np.save(made / "contact_sheet.npy", contact_sheet(parts, len(dataset.class_names)))
        write_json(made / "manifest.json", facts)
        shutil.rmtree(PREPARED, ignore_errors=True)
        made.rename(PREPARED)

    shape = "×".join(map(str, facts["image_shape"]))
    print(f"{params.dataset}: {shape}, {len(dataset.class_names)} classes")
    for part, counts in facts["splits"].items():
        each = " ".join(str(count) for count in counts["per_class"])
        print(f"  {part:5} {counts['images']:6} images  per class {each}")
        print(f"        x {counts['x_sha256'][:16]}…  y {counts['y_sha256'][:16]}…")
    messages = facts["checks"]["messages"] or ["no duplicates, no rare classes"]
    said = [*(("read", note) for note in dataset.notes), *(("check", text) for text in messages)]
    if dataset.own and (note := untracked_note(Path(params.dataset))):
        said.append(("note", note))
    for kind, text in said:
        if not text.startswith(WARNING):
            print(f"  {kind}: {text}")
    for _, text in said:
        if text.startswith(WARNING):
            print(text)  # last and not indented, so that nobody overlooks it


if __name__ == "__main__":
    run_stage(main)
