"""Read a user's own data: find out the format of a file or folder, convert images and labels."""

from __future__ import annotations

from pathlib import Path

from stages.common.cli import StageError, one_line
from stages.common.params import Prepare
from stages.datasets.array_files import read_array_files, read_npz_source, role, siblings
from stages.datasets.containers import file_format, npz_names
from stages.datasets.conversion import as_images, as_labels
from stages.datasets.csv_tables import SUFFIXES as CSV_SUFFIXES
from stages.datasets.csv_tables import csv_files, read_csv_source
from stages.datasets.labelled_images import Dataset, Source
from stages.datasets.picture_folders import listing, read_pictures

RAW = Path("data/raw")
FORMATS = "an .npz file, IDX files, CSV files, or a folder with one subfolder of pictures per class"


def load_own(path: Path, prepare: Prepare) -> Dataset:
    """Return the dataset in a user's file or folder (docs/own-data.md lists the formats).

    Raises
    ------
    StageError
        The data are missing, damaged, have no reading, or have two. The line says where.
    """
    source = read_source(path, prepare)
    if "val" in source.parts:
        source.notes.append("the data have a validation set; prepare.val_fraction is not used")
    if not prepare.transpose and any("emnist" in title.lower() for title in source.titles.values()):
        source.notes.append(
            "warning: EMNIST's files store images with rows and columns swapped; look at the "
            "contact sheet, and set prepare.transpose=true if its images lie on their side"
        )
    y, class_names = as_labels(source)
    x = as_images(
        source,
        image_size=prepare.image_size,
        transpose=prepare.transpose,
        channels=prepare.channels,
        white=255 if source.scaled else prepare.white,
    )
    return Dataset(
        x_train=x["train"],
        y_train=y["train"],
        x_test=x.get("test"),
        y_test=y.get("test"),
        class_names=class_names,
        x_val=x.get("val"),
        y_val=y.get("val"),
        notes=tuple(one_line(note) for note in source.notes),
        own=True,
    )


def read_source(path: Path, prepare: Prepare) -> Source:
    """Return the arrays in a user's file or folder, as they are."""
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that the system cannot have
        exists = False
    if not exists:
        raise StageError(missing(path))
    if path.is_dir():
        return _read_folder(path, prepare)
    if not path.is_file():
        raise StageError(f"{path} does not exist or is no file or folder; use {FORMATS}")
    kind = file_format(path)
    single = kind in ("idx", "npy") or (kind == "npz" and len(npz_names(path)) == 1)
    if single and role(path.name):
        return read_array_files(path, siblings(path))
    if kind == "npz":
        return _read_archive(path)
    if kind == "text":
        return read_csv_source(path, {"train": path}, prepare.label_column)
    raise StageError(f"{path} has an unknown format; use {FORMATS}")


def _read_archive(path: Path) -> Source:
    """Return the arrays of a ZIP archive, if NumPy wrote it."""
    if not npz_names(path):
        raise StageError(f"{path} is an archive without arrays; unpack it and name the folder")
    return read_npz_source(path)


def _read_folder(path: Path, prepare: Prepare) -> Source:
    """Return the arrays in a folder, which holds files of one format."""
    top = listing(path, path)
    tables = [path / name for name in top.others if name.lower().endswith(CSV_SUFFIXES)]
    others = [path / name for name in top.others if path / name not in tables]
    files = [file for file in others if file.is_file()]
    arrays = [file for file in files if file_format(file) in ("idx", "npy", "npz")]
    if len(top.folders) == 1 and not (top.pictures or tables or arrays):
        inner = listing(top.folders[0], path)
        if inner.folders or not inner.pictures:  # a folder around the dataset
            source = _read_folder(inner.path, prepare)
            source.notes.insert(0, f"read from the folder {inner.path.name}")
            return source
    pictures = top.pictures or top.folders
    found = [group[0] for group in (arrays, tables) if group]
    if pictures and not found:
        return read_pictures(path, prepare.image_size, prepare.white, prepare.skip_damaged)
    if len(found) + any(listing(f, path).pictures for f in top.folders) + bool(top.pictures) > 1:
        other = found[1] if len(found) > 1 else path / pictures[0]
        raise StageError(
            f"{path} holds two layouts: {found[0].name} and {other.name}; keep one of them, or "
            "name a single file as dataset"
        )
    if tables:
        return read_csv_source(path, csv_files(path), prepare.label_column)
    if len(arrays) == 1 and file_format(arrays[0]) == "npz":
        return _read_archive(arrays[0])
    if any(role(file.name) for file in arrays):
        return read_array_files(path, siblings(path))
    if arrays:
        raise StageError(f"{path}: name one of its files as dataset, for example {arrays[0]}")
    raise StageError(f"{path} holds no data; use {FORMATS}")


def missing(path: Path) -> str:
    """Say that a dataset does not exist, and what may help."""
    said = f"{path} does not exist (see `dataset` in params.yaml)"
    if path.with_name(f"{path.name}.dvc").exists():
        return f"{said}; get it with `dvc pull {path}`"
    if path.is_relative_to(RAW):
        return (
            f"{said}; queued experiments and clones only have what DVC tracks: `dvc add {path}`, "
            f"then `git add {path}.dvc`"
        )
    return said


def untracked_note(path: Path) -> str | None:
    """Return a line if DVC does not notice changes of a user's data, or None."""
    if path.resolve().is_relative_to(RAW.resolve()):
        return None
    return (
        f"DVC does not track {path}: move it to {RAW}/, or type `dvc repro --force prepare` after "
        "each change"
    )
