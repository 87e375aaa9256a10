"""Array files of unknown origin: what is read is what was written; anything else is refused."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from conftest import names

from stages.common.cli import StageError
from stages.datasets import containers
from stages.datasets.containers import read_idx, read_npz

LABELS = np.arange(9, dtype=np.uint8)


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def idx(array: np.ndarray, kind: int = 8, extra: bytes = b"") -> bytes:
    """Return an array as a gzipped IDX file."""
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzipped(header + array.tobytes() + extra)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(content: bytes, packing: int = zipfile.ZIP_STORED, size: int | None = None) -> bytes:
    """Return an `.npz` with the member `x`, which may claim a wrong `size`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("x.npy", content)
        archive.filelist[0].file_size = size or len(content)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(5, 4, 3), (60,)])
def test_idx_is_read_as_it_was_written(tmp_path, shape):
    array = np.arange(60, dtype=np.uint8).reshape(shape)
    (tmp_path / "a.gz").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)


BAD_IDX = {
    "cut at the end": (idx(LABELS)[:-12], "is damaged or cut off"),
    "cut at the start": (idx(LABELS)[:12], "is damaged or cut off"),
    "empty": (b"", "is damaged or cut off"),
    "not compressed": (b"not gzip at all", "is damaged or cut off"),
    "half a header": (gzipped(b"\0\0"), "is damaged or cut off"),
    "too few labels": (gzipped(b"\0\0\x08\x01\0\0\0\x09" + bytes(8)), "does not have the 9 bytes"),
    "too many labels": (idx(LABELS, extra=b"\0"), "does not have the 9 bytes"),
    "other numbers": (idx(LABELS, kind=9), "not an IDX file of bytes"),
    "two dimensions": (idx(LABELS.reshape(3, 3)), "not an IDX file of bytes"),
    "huge": (gzipped(b"\0\0\x08\x03" + b"\xff" * 12), "the limit is"),
    "no image, but huge": (gzipped(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8), "is too big"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_IDX.values(), ids=BAD_IDX.keys())
def test_bad_idx_is_refused(tmp_path, content, reason):
    (tmp_path / "labels.gz").write_bytes(content)
    with pytest.raises(StageError, match=reason):
        read_idx(tmp_path / "labels.gz")


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_is_read_as_it_was_written(tmp_path, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), order=order)
    np.savez_compressed(tmp_path / "a.npz", x=array, unused=array)
    found = read_npz(tmp_path / "a.npz", ("x",), optional=("y",))
    assert list(found) == ["x"]
    assert np.array_equal(found["x"], array)


GOOD = npz(npy(np.arange(100, dtype=np.uint8)))
MIDDLE = len(GOOD) // 2
FLIPPED = GOOD[:MIDDLE] + bytes([GOOD[MIDDLE] ^ 0xFF]) + GOOD[MIDDLE + 1 :]
BAD_NPZ = {
    "empty": (b"", "is damaged or cut off"),
    "cut in the middle": (GOOD[:MIDDLE], "is damaged or cut off"),
    "cut at the end": (GOOD[:-1], "is damaged or cut off"),
    "flipped byte": (FLIPPED, "Bad CRC-32"),
    "no such array": (GOOD.replace(b"x.npy", b"z.npy"), "has no array 'x'; needed: x"),
    "array without its end": (npz(npy(np.zeros(8))[:-3]), "x is cut off, or its header is wrong"),
    "not an array": (npz(b"not an array"), "x is not an array"),
    "bzip2": (npz(npy(LABELS), zipfile.ZIP_BZIP2), "compressed in a way that NumPy never uses"),
    "LZMA": (npz(npy(LABELS), zipfile.ZIP_LZMA), "compressed in a way that NumPy never uses"),
    "too large": (npz(npy(LABELS), size=2**30), "unpacks to more than"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_NPZ.values(), ids=BAD_NPZ.keys())
def test_bad_npz_is_refused(tmp_path, content, reason):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(StageError, match=reason) as refusal:
        read_npz(tmp_path / "a.npz", ("x",))
    assert str(refusal.value).startswith(str(tmp_path / "a.npz"))


def test_a_member_larger_than_it_claims_is_not_unpacked(tmp_path):
    bomb = npz(npy(np.zeros(2**26, np.uint8)), zipfile.ZIP_DEFLATED, size=1000)
    (tmp_path / "a.npz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(StageError, match="Bad CRC-32"):
        read_npz(tmp_path / "a.npz", ("x",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


class Trap:
    """Makes the folder `sprung` when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.array([Trap()], object))
    with pytest.raises(StageError, match="x holds Python objects"):
        read_npz(tmp_path / "a.npz", ("x",))
    assert names(tmp_path) == ["a.npz"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.npz", "none.npz does not exist"),
        ("a\nb.npz", "a b.npz does not exist"),
        ("a\0b", "damaged"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, reason):
    with pytest.raises(StageError, match=re.escape(reason)):
        read_npz(tmp_path / name, ("x",))


def test_the_limit_covers_all_arrays_together(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=LABELS, y=LABELS)
    size = 2 * len(npy(LABELS))
    monkeypatch.setattr(containers, "MAX_ARRAYS", size)
    assert len(read_npz(tmp_path / "a.npz", ("x", "y"))) == 2
    monkeypatch.setattr(containers, "MAX_ARRAYS", size - 1)
    with pytest.raises(StageError, match=f"unpacks to more than {size - 1} bytes"):
        read_npz(tmp_path / "a.npz", ("x", "y"))
