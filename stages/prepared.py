"""Reading what `prepare` wrote, mapped into memory rather than copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.files import StageError, read_json

PREPARED = Path("data/prepared")


def read_manifest(folder: Path = PREPARED) -> dict[str, Any]:
    """Return what `prepare` said of the data: name, image shape, classes, counts, digests."""
    return read_json(folder / "manifest.json")


def read_split(part: str, folder: Path = PREPARED) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8 (n, height, width, channels), mapped; and labels, int32 (n,).

    Raises
    ------
    StageError
        The arrays are missing or cut short.
    """
    x = read_array(folder / f"x_{part}.npy", mapped=True)
    y = read_array(folder / f"y_{part}.npy")
    return x, y


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """Return a stored array; StageError names the file when it is missing or cut short."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StageError(f"{path} is not a whole array ({error}); `dvc repro` makes it") from None
