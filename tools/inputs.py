"""Find and read the images in files and folders that need no labels, in the formats of `dataset`.

docs/own-data.md lists the formats. A folder stands for all images below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stages.common.cli import StageError
from stages.common.params import Prepare
from stages.datasets.array_files import role
from stages.datasets.containers import file_format, npz_names, read_idx, read_npy, read_npz
from stages.datasets.conversion import as_images
from stages.datasets.csv_tables import SUFFIXES as CSV_SUFFIXES
from stages.datasets.csv_tables import find_layout, read_table
from stages.datasets.labelled_images import Source
from stages.datasets.picture_folders import decoded, listing

ARRAYS = ("idx", "npy", "npz")


def files_in(path: Path) -> list[Path]:
    """Return the files with images that a path stands for: itself, or those below a folder.

    Raises
    ------
    StageError
        The path does not exist, the folder has no images, or a link leaves it.
    """
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that the system cannot have
        exists = False
    if not exists:
        raise StageError(f"{path} does not exist")
    if not path.is_dir():
        return [path]
    files = list(_below(path, path))
    if not files:
        raise StageError(f"{path} has no pictures, CSV files or arrays")
    return files


def _below(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the files with images below a folder, in the order of their names."""
    found = listing(folder, root)
    yield from (folder / name for name in found.pictures)
    for file in (folder / name for name in found.others):
        labels = (role(file.name) or "").startswith("y")
        if file.is_file() and not labels and (is_table(file) or file_format(file) in ARRAYS):
            yield file
    for inner in found.folders:
        yield from _below(inner, root)


def is_table(file: Path) -> bool:
    """Return whether a file is a CSV table, by its name."""
    return file.name.lower().endswith(CSV_SUFFIXES)


def is_picture(file: Path) -> bool:
    """Return whether a file, or a link to a missing one, is one picture and not many images."""
    return not file.exists() or (not is_table(file) and file_format(file) not in ARRAYS)


def read_picture(file: Path, white: Callable[[], int] | None = None) -> Image.Image:
    """Return an upright picture as RGBA. A damaged or very large one raises StageError.

    `white` returns the value of white in pictures of 16 bits; without it, the picture decides.
    """
    return decoded(file, white)[0].convert("RGBA")


def read_arrays(file: Path, prepare: Prepare) -> dict[str, np.ndarray]:
    """Return the images in an `.npz`, `.npy`, IDX or CSV file by the name of their array.

    They are uint8 (n, …, height, width, channels), converted as `prepare` converts a dataset. The
    only array of a CSV, IDX or `.npy` file has the name "". Labels are not read.

    Raises
    ------
    StageError
        The file is damaged, has no images, or its values have no reading or two.
    """
    if is_table(file):
        arrays = {"": read_table(file, find_layout(file, prepare.label_column))[0]}
    elif (kind := file_format(file)) == "npz":
        names = npz_names(file)
        images = [name for name in names if (role(name) or "").startswith("x")]
        images = images or (names if len(names) == 1 else [])
        if not images:
            raise StageError(
                f"{file} has no images: none of its arrays is called x, images, x_test or "
                f"test_images ({', '.join(names[:8])})"
            )
        arrays = read_npz(file, tuple(images))
    else:
        arrays = {"": read_idx(file) if kind == "idx" else read_npy(file)}
    return {name: _converted(file, name, array, prepare) for name, array in arrays.items()}


def _converted(file: Path, name: str, array: np.ndarray, prepare: Prepare) -> np.ndarray:
    source = Source(file, {"x_train": array}, {"x_train": name or "the array"})
    return as_images(
        source,
        image_size=prepare.image_size,
        transpose=prepare.transpose,
        channels=prepare.channels,
        white=prepare.white,
    )["train"]
