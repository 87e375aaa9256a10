"""Remove what the pipeline and its commands have generated.

    python -m tools.clean

Keeps your files, the files that git tracks, the results of studies, the installed packages and
DVC's cache. Works without git.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stages.common.cli import run
from stages.common.params import read_yaml

DVC_FILE = Path("dvc.yaml")
FOLDERS = ("review", "runs", "dvc_plots", ".pytest_cache", ".ruff_cache", ".hypothesis")
FILES = (  # patterns of generated files in folders that may also hold your files
    "data/prepared/[xy]_*.npy", "data/prepared/contact_sheet.npy", "data/prepared/manifest.json",
    "data/predictions/*.npy", "data/predictions/details.json",
    "data/predictions/architecture.json", "data/predictions/explanations.json",
    "data/checkpoints/*.ckpt", "data/export/*.tflite", "data/export/*.onnx",
    "data/export/summary.csv", "data/export/*/saved_model.pb",
    "plots/figures/*.png",
)  # fmt: skip


def main() -> None:
    for name in FOLDERS:
        shutil.rmtree(name, ignore_errors=True)
    outputs = [
        out
        for stage in read_yaml(DVC_FILE)["stages"].values()
        for out in stage["outs"]
        if isinstance(out, str)  # the others are in git
    ]
    found = [path for pattern in (*outputs, *FILES) for path in Path().glob(pattern)]
    for path in found:
        if path.name == "saved_model.pb":
            shutil.rmtree(path.parent)
        elif path.is_file():
            path.unlink()
    for folder in {path.parent for path in found} | {path for path in found if path.is_dir()}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    run(main)
