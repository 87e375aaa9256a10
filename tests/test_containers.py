"""Array files of unknown origin are read as they were written, or refused."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from conftest import names

from stages.common.cli import StageError
from stages.datasets.containers import IDX_TYPES, file_format, read_idx, read_npy, read_npz

LABELS = np.arange(9, dtype=np.uint8)
read_x = partial(read_npz, required=("x",), optional=("y",))


def idx(array: np.ndarray, kind: int = 8, extra: bytes = b"") -> bytes:
    """Return an array as a gzipped IDX file."""
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes() + extra)


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
def test_arrays_are_read_as_they_were_written(tmp_path, shape):
    array = np.arange(60, dtype=np.uint8).reshape(shape)
    (tmp_path / "a.gz").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)
    for order in ("C", "F"):
        np.savez_compressed(tmp_path / "a.npz", x=np.asarray(array, order=order), unused=array)
        found = read_x(tmp_path / "a.npz")
        assert list(found) == ["x"]
        assert np.array_equal(found["x"], array)


@pytest.mark.parametrize("kind", IDX_TYPES)
def test_idx_files_of_every_type_are_read_with_and_without_gzip(tmp_path, kind):
    array = np.arange(24).reshape(2, 3, 4).astype(IDX_TYPES[kind])
    for content in (idx(array, kind), gzip.decompress(idx(array, kind))):
        (tmp_path / "a").write_bytes(content)
        assert file_format(tmp_path / "a") == "idx"
        assert np.array_equal(read_idx(tmp_path / "a"), array)


def test_a_format_is_found_from_the_content(tmp_path):
    for wanted, content in (
        ("npz", npz(npy(LABELS))), ("npy", npy(LABELS)), ("text", b"label,pixel0\n"),
        ("text", gzip.compress(b"label")), ("binary", b"\x80\0"), ("text", b""),
    ):  # fmt: skip
        (tmp_path / "a").write_bytes(content)
        assert file_format(tmp_path / "a") == wanted
    (tmp_path / "a").write_bytes(npy(LABELS))
    assert np.array_equal(read_npy(tmp_path / "a"), LABELS)


GOOD = npz(npy(np.arange(100, dtype=np.uint8)))
MIDDLE = len(GOOD) // 2
FLIPPED = GOOD[:MIDDLE] + bytes([GOOD[MIDDLE] ^ 0xFF]) + GOOD[MIDDLE + 1 :]
HUGE = gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12)
NO_IMAGE_BUT_HUGE = gzip.compress(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8)
DAMAGED, UNUSUAL = "is damaged or cut off", "compressed in a way that NumPy never uses"
BAD = [
    *((read_idx, content, DAMAGED) for content in (
        idx(LABELS)[:-12], idx(LABELS)[:12], b"", gzip.compress(b"\0\0"),
    )),
    *((read_idx, content, "is not an IDX file") for content in (
        b"not gzip at all", idx(LABELS, kind=10), idx(LABELS.reshape(3, 1, 1, 3, 1)),
    )),
    *((read_idx, gzip.compress(b"\0\0\x08\x01\0\0\0\x09" + bytes(n)), "does not have the 9 bytes")
      for n in (8, 10)),
    (read_idx, HUGE, "the limit is"),
    (read_idx, NO_IMAGE_BUT_HUGE, "is too big"),
    *((read_x, content, DAMAGED) for content in (b"", GOOD[:MIDDLE], GOOD[:-1])),
    (read_x, FLIPPED, "Bad CRC-32"),
    (read_x, GOOD.replace(b"x.npy", b"z.npy"), "has no array 'x'; needed: x"),
    (read_x, npz(npy(np.zeros(8))[:-3]), "x is cut off, or its header is wrong"),
    (read_x, npz(b"not an array"), "x is not an array"),
    *((read_x, npz(npy(LABELS), packing), UNUSUAL)
      for packing in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
    (read_x, npz(npy(LABELS), size=2**30), "unpacks to more than"),
    (read_x, None, "does not exist"),
    (read_npy, npy(LABELS)[:-1], "is cut off, or its header is wrong"),
    (read_npy, npy(np.array([None])), "holds Python objects"),
    (read_npy, b"text", "is not an array"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "content", "reason"), BAD, ids=range(len(BAD)))
def test_a_bad_or_missing_file_is_named(tmp_path, read, content, reason):
    if content is not None:
        (tmp_path / "a.b").write_bytes(content)
    with pytest.raises(StageError, match=reason) as refusal:
        read(tmp_path / "a.b")
    assert str(refusal.value).startswith(str(tmp_path / "a.b"))


def test_a_member_larger_than_it_claims_is_not_unpacked(tmp_path):
    bomb = npz(npy(np.zeros(2**26, np.uint8)), zipfile.ZIP_DEFLATED, size=1000)
    (tmp_path / "a.npz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(StageError, match="Bad CRC-32"):
        read_x(tmp_path / "a.npz")
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
        read_x(tmp_path / "a.npz")
    assert names(tmp_path) == ["a.npz"]
