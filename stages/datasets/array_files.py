"""Find images and labels among the arrays of an `.npz` file, or in a folder of array files.

The name of an array or file says what it holds: `x_train`, `test_labels`,
`t10k-images-idx3-ubyte.gz`, `kmnist-train-imgs.npz`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from stages.common.cli import StageError
from stages.datasets.containers import file_format, npz_names, read_idx, read_npy, read_npz
from stages.datasets.labelled_images import Source

PART_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "t10k"),
}
KIND_WORDS = {
    "x": ("x", "images", "image", "imgs", "data"),
    "y": ("y", "labels", "label", "targets", "target"),
}
NAMES = "class_names"
LAYOUTS = "x_train and y_train (with x_test, y_test), train_images and train_labels, or x and y"


def role(name: str) -> str | None:
    """Return the role of an array: ``x_train``, ``y_test``, …, or ``x``, ``y`` without a part."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    kinds = [kind for kind, known in KIND_WORDS.items() if set(words) & set(known)]
    parts = [part for part, known in PART_WORDS.items() if set(words) & set(known)]
    if len(kinds) != 1 or len(parts) > 1:
        return None
    return "_".join(kinds + parts)


def assign(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return which of the named arrays has which role: ``x_train``, ``y_train``, ….

    Raises
    ------
    StageError
        Two arrays have one role, there are arrays with and without a part, or one is missing.
    """
    roles: dict[str, str] = {}
    for name in names:
        found = role(name)
        if found in roles:
            raise StageError(
                f"{path} has two arrays for the same data: {roles[found]!r} and {name!r}; "
                "keep one of them"
            )
        if found:
            roles[found] = name
    whole = [name for found, name in roles.items() if "_" not in found]
    divided = [name for found, name in roles.items() if "_" in found]
    if whole and divided:
        raise StageError(
            f"{path} holds two layouts: one array for all parts ({whole[0]!r}) and arrays per "
            f"part ({divided[0]!r}); keep one of them"
        )
    if whole:
        roles = {f"{found}_train": name for found, name in roles.items()}
    for found, name in roles.items():
        other = f"{'y' if found[0] == 'x' else 'x'}{found[1:]}"
        if other not in roles:
            wanted = "labels" if found[0] == "x" else "images"
            raise StageError(f"{path} has {name!r}, but no {wanted} for it (such as {other!r})")
    if "x_train" not in roles:
        raise StageError(f"{path} has no training images; wanted: {LAYOUTS}")
    return roles


def read_npz_source(path: Path) -> Source:
    """Return the arrays of a user's `.npz` file."""
    names = npz_names(path)
    roles = assign(path, [name for name in names if name != NAMES])
    arrays = read_npz(path, tuple(roles.values()), optional=(NAMES,))
    used = {*roles.values(), NAMES}
    ignored = [name for name in names if name not in used]
    return Source(
        path,
        {found: arrays[name] for found, name in roles.items()},
        roles,
        arrays.get(NAMES),
        [f"not used: {', '.join(ignored)}"] if ignored else [],
    )


def read_array_files(path: Path, files: Mapping[str, Path]) -> Source:
    """Return the arrays in files that hold one array each; `files` are named by their titles."""
    roles = assign(path, files)
    source = Source(path, titles=roles)
    for found, title in roles.items():
        array = read_single(files[title])
        if found[0] == "y" and title.lower().startswith("qmnist") and array.ndim == 2:
            source.notes.append(f"{title}: the first of {array.shape[1]} columns is the label")
            array = array[:, 0]
        source.arrays[found] = array
    return source


def read_single(path: Path) -> np.ndarray:
    """Return the array of an IDX or `.npy` file, or the only array of an `.npz` file."""
    kind = file_format(path)
    if kind == "idx":
        return read_idx(path)
    if kind == "npy":
        return read_npy(path)
    names = npz_names(path) if kind == "npz" else []
    if len(names) != 1:
        raise StageError(f"{path} should hold one array: an IDX, .npy or .npz file")
    return read_npz(path, (names[0],))[names[0]]


def siblings(path: Path) -> dict[str, Path]:
    """Return the array files of one dataset in a folder, by name.

    `path` is the folder, or one of the files. Then the others have the same words in their names,
    apart from those of the part and the kind: `emnist-letters-train-images-idx3-ubyte.gz`.
    """
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and role(file.name)]
    files = [file for file in files if file_format(file) in ("idx", "npy", "npz")]
    if not path.is_dir():
        files = [file for file in files if _stem(file.name) == _stem(path.name)]
    stems = {_stem(file.name): file for file in files}
    if len(stems) > 1:
        first, second, *_ = stems.values()
        raise StageError(
            f"{path} holds two datasets, for example {first.name} and {second.name}; choose "
            f"one by the path of one of its files: dataset={first}"
        )
    return {file.name: file for file in files}


def _stem(name: str) -> str:
    """Return the words of a file name that do not say its part, kind or format."""
    known = {word for words in (*PART_WORDS.values(), *KIND_WORDS.values()) for word in words}
    known |= {"idx1", "idx2", "idx3", "idx4", "ubyte", "int", "gz", "npy", "npz"}
    return " ".join(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word not in known)
