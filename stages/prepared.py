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
    try:
        x = np.load(folder / f"x_{part}.npy", mmap_mode="r", allow_pickle=False)
        y = np.load(folder / f"y_{part}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StageError(
            f"{folder}: cannot read the {part} arrays ({error}); `dvc repro` makes them"
        ) from None
    return x, y
