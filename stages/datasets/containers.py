"""Read IDX, `.npy` and `.npz` files of unknown origin, without unpickling and within a limit."""

from __future__ import annotations

import gzip
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from stages.common.cli import StageError, one_line

MAX_ARRAYS = 3 * 2**28  # bytes of all arrays of a file together; splitting needs twice that
CHUNK = 2**20  # bytes read at once
GZIP, ZIP, NPY = b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, through gzip if it is gzipped."""
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
    with gzip.open(path) if zipped else path.open("rb") as file:
        yield file


def file_format(path: Path) -> str:
    """Return ``npz``, ``npy``, ``idx``, ``binary`` or ``text``, from a file's first bytes."""
    try:
        with unpacked(path) as file:
            head = file.read(4096)
    except (EOFError, gzip.BadGzipFile, gzip.zlib.error) as error:
        raise StageError(f"{path} is damaged or cut off ({error})") from None
    if head.startswith((ZIP, NPY)):
        return "npz" if head.startswith(ZIP) else "npy"
    if head[:2] == b"\0\0" and head[2:3] and head[2] in IDX_TYPES and 1 <= head[3] <= 4:
        return "idx"
    return "binary" if b"\0" in head else "text"


def read_idx(path: Path) -> np.ndarray:
    """Return the array in an IDX file, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Raises
    ------
    StageError
        The file is damaged, not IDX, or larger than `MAX_ARRAYS`.
    """
    try:
        with unpacked(path) as file:
            zero, kind, dimensions = int.from_bytes(file.read(2), "big"), *file.read(2)
            if zero != 0 or kind not in IDX_TYPES or not 1 <= dimensions <= 4:
                raise StageError(f"{path} is not an IDX file with 1 to 4 dimensions")
            shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
            dtype = np.dtype(IDX_TYPES[kind])
            size = math.prod(shape) * dtype.itemsize
            if size > MAX_ARRAYS:
                raise StageError(f"{path} claims {size} bytes; the limit is {MAX_ARRAYS}")
            content = _read_exactly(file, size)
            if content is None or file.read(1):
                raise StageError(f"{path} does not have the {size} bytes that its header states")
            return np.frombuffer(content, dtype).reshape(shape)
    except Exception as error:
        raise _damaged(path, error) from None


def read_npy(path: Path) -> np.ndarray:
    """Return the array in an `.npy` file, without unpickling, checked like those of an `.npz`."""
    size = path.stat().st_size
    if size > MAX_ARRAYS:
        raise StageError(f"{path} has {size} bytes; the limit is {MAX_ARRAYS}")
    try:
        with path.open("rb") as file:
            return _read_npy(file, size, str(path))
    except Exception as error:
        raise _damaged(path, error) from None


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in an `.npz` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
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
        raise StageError(
            f"{where} holds Python objects, not numbers; all images need one size, and text labels "
            "dtype=str"
        )
    expected = size - file.tell()
    if math.prod(shape) * dtype.itemsize != expected:
        raise StageError(f"{where} is cut off, or its header is wrong")
    content = _read_exactly(file, expected)
    if content is None:
        raise StageError(f"{where} is cut off")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_exactly(file: IO[bytes], size: int) -> bytearray | None:
    """Return the next `size` bytes in memory that an array may change; None if there are fewer."""
    content = bytearray(size)
    view, position = memoryview(content), 0
    while position < size:
        read = file.readinto(view[position : position + CHUNK])
        if not read:
            return None
        position += read
    return content


def _damaged(path: Path, error: Exception) -> Exception:
    """Turn a reader's exception into a StageError, except our own and those of the system."""
    if isinstance(error, StageError | MemoryError) or getattr(error, "filename", None):
        return error
    return StageError(f"{path} is damaged or cut off ({error})")
