"""Made-up data files: a user's `.npz`, and gzipped IDX."""

from __future__ import annotations

import gzip
import math
import struct

import numpy as np
from conftest import tiny_arrays
from fuzz_common import LARGE, TRAP, Target, archives, damaged, saved, zipped
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

ARRAYS = tiny_arrays(side=(6, 5), per_class=4) | {"class_names": np.array(["a", "b", "ç"])}
DTYPES = st.one_of(
    npst.scalar_dtypes(), npst.array_dtypes(max_size=2), npst.unicode_string_dtypes(max_len=3),
    npst.byte_string_dtypes(max_len=3), st.sampled_from(["u1", ">i8", "V0", "U0", "m8[s]", "b1"]),
)  # fmt: skip
SHAPES = st.one_of(
    npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    st.sampled_from([(12,), (12, 1), (12, 6, 5), (12, 6, 5, 1), (6, 6, 5), (6,), (3,)]),
)
HEADERS = st.one_of(
    st.fixed_dictionaries({
        "descr": st.one_of(
            st.sampled_from(["|u1", "<i8", "|O", "<U9", "<U99999999", "|V0", "<m8[s]", "<f4", "x"]),
            st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["u1", "O"])), max_size=3),
        ),
        "fortran_order": st.booleans(),
        "shape": st.lists(st.one_of(st.integers(-3, 60), st.integers(0, LARGE)), max_size=4)
        .map(tuple),
    }).map(repr),
    st.sampled_from(["(" * 3000, "{'descr': __import__('os').mkdir('sprung')}", "1L", "", "'"]),
    st.text(max_size=20),
)  # fmt: skip


def npy(header: str, version: int, content: bytes) -> bytes:
    """Return an `.npy` with any header."""
    text = header.encode("utf-8", "replace")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + content


def filled(dtype: np.dtype | str, shape: tuple[int, ...], pattern: bytes) -> bytes:
    """Return an `.npy` of any type whose values are a repeated pattern of bytes."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    content = (pattern * (size // len(pattern) + 1))[:size]
    return saved(np.ndarray(shape, dtype, content)) if not dtype.hasobject else TRAP


MEMBERS = {f"{name}.npy": saved(array) for name, array in ARRAYS.items()}
STRANGE = st.one_of(
    st.builds(filled, DTYPES, SHAPES, st.binary(min_size=1, max_size=16)),
    st.builds(filled, st.sampled_from(["u1", "i8"]), SHAPES, st.sampled_from([b"\0", b"\1"])),
    st.builds(npy, HEADERS, st.integers(0, 4), st.binary(max_size=200)),
    st.just(TRAP), st.binary(max_size=60), st.sampled_from(sorted(MEMBERS)).map(MEMBERS.get),
    st.sampled_from(sorted(MEMBERS)).map(MEMBERS.get).flatmap(damaged),
)  # fmt: skip


def npz_files() -> Target:
    """A user's `.npz`."""
    from stages.datasets import load_npz

    good = zipped(list(MEMBERS.items()))
    inputs = st.one_of(archives(MEMBERS, STRANGE), archives(MEMBERS, STRANGE), st.binary())
    return Target(inputs, load_npz, [good], ".npz")


# --- IDX ----------------------------------------------------------------------------------

SIDES = st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1))
STARTS = st.sampled_from(
    [b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x08\xff", b"\0\0\x0d\x01", b"\0"]
)


def idx(start: bytes, sides: list[int], content: bytes) -> bytes:
    return start + b"".join(side.to_bytes(4, "big") for side in sides) + content


IDX = st.one_of(
    st.builds(idx, STARTS, st.lists(SIDES, max_size=4), st.binary(max_size=80)),
    st.builds(lambda content: idx(b"\0\0\x08\x01", [len(content)], content), st.binary()),
    st.binary(max_size=40),
)


def idx_files() -> Target:
    """A gzipped IDX file."""
    from stages.datasets import read_idx

    good = gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc", mtime=0)
    packed = st.builds(lambda content, level: gzip.compress(content, level, mtime=0),
                       IDX, st.integers(0, 9))  # fmt: skip
    inputs = st.one_of(
        packed, packed.flatmap(damaged), st.lists(packed, max_size=3).map(b"".join), st.binary(),
    )  # fmt: skip
    return Target(inputs, read_idx, [good], ".gz")
