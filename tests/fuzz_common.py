"""Ways to make up strange input that several kinds of it share."""

from __future__ import annotations

import copy
import io
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

LARGE = 2**40


@dataclass
class Target:
    """`read` takes what `inputs` gives, and must accept what is in `good`.

    With a `suffix`, inputs are bytes, and what is read is the path of a file that holds them.
    """

    inputs: st.SearchStrategy
    read: Callable[[Any], object]
    good: list[Any]
    suffix: str = ""
    limit_addresses: bool = True  # TensorFlow reserves more of them than it ever touches


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, cut out, repeat or cut off a few bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["set", "set", "word", "delete", "insert", "cut"]))
        if kind == "set" and changed:
            changed[at] = draw(st.integers(0, 255))
        elif kind == "word":
            word = draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]))
            order, size = draw(st.sampled_from(["big", "little"])), draw(st.sampled_from([2, 4, 8]))
            changed[at : at + size] = (word % 2 ** (8 * size)).to_bytes(size, order)
        elif kind == "delete":
            del changed[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[at:at] = draw(st.binary(max_size=32))
        elif kind == "cut":
            del changed[at:]
    return bytes(changed)


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """Return the paths to everything in nested lists and mappings."""
    items = enumerate(value) if isinstance(value, list) else ()
    items = value.items() if isinstance(value, dict) else items
    return [here, *(place for key, item in items for place in places(item, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, document: Any, values: st.SearchStrategy) -> Any:
    """Replace, drop or add a few values of a nested document, by copies that no other shares."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(changed)))
        if not place:
            continue
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add"]))
        if action == "replace":
            parent[place[-1]] = copy.deepcopy(draw(values))
        elif action == "drop":
            del parent[place[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = copy.deepcopy(draw(values))
        else:
            parent.append(copy.deepcopy(draw(values)))
    return changed


class Trap:
    """Makes the folder `sprung` when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


TRAP = saved(np.array([Trap(), None], dtype=object))


PACKINGS = (zipfile.ZIP_STORED,) * 2 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def zipped(members: list[tuple[str, bytes]], packing: int = 0, size: int | None = None) -> bytes:
    """Return a ZIP archive; `size` is what each member claims to unpack to, where it lies."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
        if size is not None:
            for info in archive.filelist:
                info.file_size = size
    return file.getvalue()


@st.composite
def archives(draw: st.DrawFn, members: dict[str, bytes], strange: st.SearchStrategy) -> bytes:
    """Return an archive with members replaced, left out, doubled, renamed or packed otherwise."""
    chosen = type(members)(members)
    for _ in range(draw(st.integers(0, 2))):
        chosen[draw(st.sampled_from(sorted(members)))] = draw(strange)
    rows = list(chosen.items())
    if draw(st.booleans()):
        name = draw(st.sampled_from(["../sprung", "/sprung", "x.npy", *members, "", "a/../../b"]))
        action = draw(st.sampled_from(["add", "rename", "drop"]))
        at = draw(st.integers(0, len(rows) - 1))
        if action == "add":
            rows.append((name, draw(strange)))
        elif action == "rename":
            rows[at] = (name, rows[at][1])
        else:
            del rows[at]
    packing = draw(
        st.sampled_from([0, 0, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    )
    size = draw(st.sampled_from([None, None, None, 0, 200, 10**6, 2**29, 2**31]))
    return draw(damaged(zipped(rows, packing, size)))
