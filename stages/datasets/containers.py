"""Read IDX and `.npz` files of unknown origin, without unpickling and within a size limit."""

from __future__ import annotations

import gzip
import math
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from stages.common.cli import StageError, one_line

MAX_ARRAYS = 3 * 2**28  # bytes of all arrays of a file together; splitting needs twice that


def read_idx(path: Path) -> np.ndarray:
    """Return the array in a gzipped IDX file of uint8 (format: yann.lecun.com/exdb/mnist).

    Returns
    -------
    numpy.ndarray
        uint8, with the shape in the header: (n,) or (n, height, width).

    Raises
    ------
    StageError
        The file is damaged, not IDX, or larger than `MAX_ARRAYS`.
    """
    try:
        with gzip.open(path) as file:
            zero, kind, dimensions = int.from_bytes(file.read(2), "big"), *file.read(2)
            shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
            size = math.prod(shape)
            if zero != 0 or kind != 0x08 or dimensions not in (1, 3):
                raise StageError(f"{path} is not an IDX file of bytes with 1 or 3 dimensions")
            if size > MAX_ARRAYS:
                raise StageError(f"{path} claims {size} bytes; the limit is {MAX_ARRAYS}")
            content = file.read(size + 1)
            if len(content) != size:
                raise StageError(f"{path} does not have the {size} bytes that its header states")
            return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    except Exception as error:
        raise _damaged(path, error) from None


def read_npz(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Return the named arrays of an `.npz` file, without unpickling.

    Raises
    ------
    StageError
        The file or a required array is missing, damaged or pickled, or the arrays exceed
        `MAX_ARRAYS`.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = [name for name in (*required, *optional) if f"{name}.npy" in members]
            for name in required:
                if name not in found:
                    raise StageError(f"{path} has no array {name!r}; needed: {', '.join(required)}")
            if sum(members[f"{name}.npy"].file_size for name in found) > MAX_ARRAYS:
                raise StageError(f"{path} unpacks to more than {MAX_ARRAYS} bytes")
            for name in found:
                info = members[f"{name}.npy"]
                # Python's bzip2 and LZMA readers unpack without a limit on memory.
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise StageError(f"{path}: {name} is compressed in a way that NumPy never uses")
                with archive.open(info) as member:
                    arrays[name] = _read_npy(member, info.file_size, f"{path}: {name}")
    except FileNotFoundError:
        raise StageError(f"{path} does not exist (see `dataset` in params.yaml)") from None
    except Exception as error:
        raise _damaged(path, error) from None
    return arrays


def _read_npy(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """Return the array in an `.npy` of `size` bytes. Check its header before allocating memory."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about headers written by Python 2
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
    except Exception as error:  # NumPy's and Python's parsers raise many types
        raise StageError(f"{where} is not an array ({one_line(error)[:120]})") from None
    if dtype.hasobject:
        raise StageError(f"{where} holds Python objects, not numbers; all images need one size")
    expected = size - file.tell()
    if math.prod(shape) * dtype.itemsize != expected:
        raise StageError(f"{where} is cut off, or its header is wrong")
    content = file.read(expected)
    if len(content) != expected:
        raise StageError(f"{where} is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _damaged(path: Path, error: Exception) -> Exception:
    """Turn a reader's exception into a StageError, except our own and those of the system."""
    if isinstance(error, StageError | MemoryError) or getattr(error, "filename", None):
        return error
    return StageError(f"{path} is damaged or cut off ({error})")
