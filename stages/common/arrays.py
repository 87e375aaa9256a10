"""Read the arrays that `prepare` wrote, and write arrays."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.cli import StageError
from stages.common.files import read_json, replacing

PREPARED = Path("data/prepared")


@dataclass
class Arrays:
    """Images `x`, uint8 (n, height, width, channels), and labels `y` (n,) of one part of the data.

    Sequences have a time axis: (n, time, height, width, channels). `x` may be memory-mapped:
    its pages are read from the file when they are needed.
    """

    x: np.ndarray
    y: np.ndarray

    def release(self) -> None:
        """Let the system drop the mapped pages read so far; they stay in its file cache.

        Linux reads ahead, so without this the resident memory grows to the whole file.
        """
        mapped = getattr(self.x, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def read_manifest(folder: Path = PREPARED) -> dict[str, Any]:
    """Return the manifest of the prepared data, as made by `stages.datasets.splits.manifest`."""
    return read_json(folder / "manifest.json")


def read_split(part: str, folder: Path = PREPARED) -> Arrays:
    """Return ``train``, ``val`` or ``test`` of the prepared data; the images are memory-mapped.

    Raises
    ------
    StageError
        An array is missing or damaged.
    """
    return Arrays(
        read_array(folder / f"x_{part}.npy", mapped=True), read_array(folder / f"y_{part}.npy")
    )


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """Return the array in an `.npy` file. A missing or damaged file raises StageError."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StageError(
            f"{path} is not a complete array ({error}); run `dvc repro` to create it"
        ) from None


def write_array(path: Path, array: np.ndarray) -> None:
    """Save an array as `.npy` atomically."""
    with replacing(path) as temporary:
        np.save(temporary, array)


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
