"""Read CSV files with one image per row: a label and the values of its pixels."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import warnings
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.common.cli import StageError, one_line
from stages.datasets.array_files import PART_WORDS
from stages.datasets.containers import MAX_ARRAYS, unpacked
from stages.datasets.labelled_images import Source

if TYPE_CHECKING:
    import pandas as pd

LABEL_WORDS = ("label", "labels", "class", "target", "y", "digit")
INDEX_WORDS = ("", "id", "index", "unnamed: 0")
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
ROWS, CELLS = 2000, 2**23  # read at once, at most: an unpacked row can be long
SAMPLE = 10  # rows that show whether there is a header, and how many columns there are
MAX_LINE = 2**24  # bytes


@dataclass
class Layout:
    """The columns of a CSV file; `label` is -1 without labels."""

    delimiter: str
    header: bool
    columns: int
    label: int
    pixels: list[int]
    note: str = ""


def csv_files(folder: Path) -> dict[str, Path]:
    """Return the CSV files in a folder by part. A single file is the part ``train``.

    Raises
    ------
    StageError
        There are several files, and their names do not say which part each of them is.
    """
    files = [file for file in sorted(folder.iterdir()) if file.name.lower().endswith(SUFFIXES)]
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if len(files) <= 1:
        return dict.fromkeys(["train"], files[0]) if files else {}
    found: dict[str, Path] = {}
    for file in files:
        words = set(re.split(r"[^a-z0-9]+", file.name.lower()))
        parts = [part for part, known in PART_WORDS.items() if words & set(known)]
        if len(parts) == 1:
            if parts[0] in found:
                raise StageError(
                    f"{folder}: {found[parts[0]].name} and {file.name} both look like the part "
                    f"{parts[0]!r}; keep one of them"
                )
            found[parts[0]] = file
    if "train" not in found:
        names = ", ".join(file.name for file in files[:4])
        raise StageError(
            f"{folder}: none of {names} is called train.csv; set `dataset` to the file to use"
        )
    return found


def read_csv_source(path: Path, files: dict[str, Path], label_column: str) -> Source:
    """Return the images and labels of CSV files, one for each part."""
    source = Source(path)
    for part, file in files.items():
        layout = find_layout(file, label_column)
        if layout.label < 0 and part != "train":
            source.notes.append(f"{file.name} has no labels, so it is not used")
            continue
        if layout.label < 0:
            raise StageError(
                f"{file} has {len(layout.pixels)} pixel columns but no label; a column named "
                "'label' is needed"
            )
        if layout.note:
            source.notes.append(f"{file.name}: {layout.note}")
        x, y = read_table(file, layout)
        if part == "train" and y.dtype.kind == "U":
            _check_labels(file, layout, y)
        source.arrays |= {f"x_{part}": x, f"y_{part}": y}
        source.titles |= {f"x_{part}": file.name, f"y_{part}": f"the label column of {file.name}"}
    return source


# --- columns ------------------------------------------------------------------------------


def find_layout(path: Path, label_column: str) -> Layout:
    """Return which column of a CSV file has the labels and which have pixels."""
    delimiter, rows = _first_rows(path)
    cells = rows[0]
    if len(cells) < 3:
        raise StageError(f"{path}: a row has {len(cells)} cells; a label and its pixels are needed")
    numbers = [cell for cell in cells if _is_number(cell)]
    # pandas numbers columns without names; other headers are mostly text
    counting = any(numbers == [str(i + k) for i in range(len(numbers))] for k in (0, 1))
    texts = [cell.lower() for cell in cells[1:-1] if not _is_number(cell)]
    if not (counting or 2 * len(texts) > len(cells) - 2 or {*texts} & {*LABEL_WORDS}):
        lengths = [len(row) for row in rows]
        columns = max(lengths, key=lambda length: (lengths.count(length), length))
        return _headerless(path, label_column, delimiter, columns)
    lower = [cell.lower() for cell in cells]
    labels = [i for i, cell in enumerate(lower) if cell in LABEL_WORDS]
    if len(labels) > 1:
        raise StageError(
            f"{path}: the columns {cells[labels[0]]!r} and {cells[labels[1]]!r} both look like "
            "labels; remove one of them"
        )
    index = [i for i, cell in enumerate(lower) if cell in INDEX_WORDS]
    pixels = [i for i in range(len(cells)) if i not in labels + index]
    if not _is_picture(len(pixels)):
        raise StageError(f"{path}: {_missing_column([cells[i] for i in pixels])}")
    note = f"column {cells[index[0]]!r} is not used" if index else ""
    label = labels[0] if labels else -1
    return Layout(delimiter, True, len(cells), label, pixels, note)


def _headerless(path: Path, label_column: str, delimiter: str, columns: int) -> Layout:
    """Return the layout of a file without a header: the label is the first or the last cell."""
    if _is_picture(columns):
        return Layout(delimiter, False, columns, -1, list(range(columns)))
    if not _is_picture(columns - 1):
        raise StageError(
            f"{path}: {columns} columns are not a label and a square picture (such as 1 + 784)"
        )
    if label_column == "auto":
        # A label column is not constant; the corner pixel of images is, if it is background.
        first, last = _varying(path, delimiter, columns)
        if first == last:
            raise StageError(
                f"{path} has no header, and its first or its last column could be the labels; set "
                "prepare.label_column=first or last"
            )
        label_column = "first" if first else "last"
    label = 0 if label_column == "first" else columns - 1
    pixels = [i for i in range(columns) if i != label]
    note = f"no header; the {label_column} column has the labels"
    return Layout(delimiter, False, columns, label, pixels, note)


def _varying(path: Path, delimiter: str, columns: int) -> tuple[bool, bool]:
    """Return whether the first cells of all complete rows differ, and whether the last cells do."""
    first, last = set(), set()
    for line in _lines(path):
        if line.count(delimiter) == columns - 1:
            first.add(line.partition(delimiter)[0].strip())
            last.add(line.rpartition(delimiter)[2].strip())
        if len(first) > 1 and len(last) > 1:
            break
    return len(first) > 1, len(last) > 1


def _first_rows(path: Path) -> tuple[str, list[list[str]]]:
    """Return the delimiter of a CSV file, and the cells of its first rows."""
    lines: list[str] = []
    for line in _lines(path):
        lines.append(line)
        if len(lines) == SAMPLE or sum(map(len, lines)) > MAX_LINE:
            break
    if not lines:
        raise StageError(f"{path} is empty")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise StageError(f"{path} is not a CSV file ({one_line(error)})") from None
    return delimiter, [[cell.strip() for cell in row] for row in rows]


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a CSV file that are not empty."""
    try:
        with unpacked(path) as file:
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                if line.strip():
                    yield line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeError as error:
        raise StageError(f"{path} is not a CSV file ({one_line(error)})") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StageError(f"{path} is damaged or cut off ({one_line(error)})") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_picture(pixels: int) -> bool:
    """Return whether so many values are a square picture of one or three colours."""
    planes = [pixels, pixels // 3] if pixels % 3 == 0 else [pixels]
    return any(n > 1 and math.isqrt(n) ** 2 == n for n in planes)


def _missing_column(names: list[str]) -> str:
    """Say which pixel column is missing, if the columns are numbered."""
    found = [int(number[1]) for name in names if (number := re.search(r"(\d+)$", name))]
    said = f"{len(names)} pixel columns are not a square picture (such as 784 = 28×28)"
    gaps = sorted(set(range(min(found), max(found))) - set(found)) if found else []
    if len(found) == len(names) and 0 < len(gaps) < 10:
        said += f"; column {names[0][: -len(str(found[0]))]}{gaps[0]} is missing"
    return said


# --- values -------------------------------------------------------------------------------


def read_table(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (n, pixels) in the smallest type that holds them, and the labels (n,).

    Without a column of labels, the labels are empty texts.
    """
    import pandas as pd

    images, labels, size = [], [], 0
    try:
        with (
            unpacked(path) as file,
            warnings.catch_warnings(action="error"),
            pd.read_csv(
                file, sep=layout.delimiter, header=None, names=list(range(layout.columns)),
                skiprows=int(layout.header), index_col=False, low_memory=False,
                chunksize=max(1, min(ROWS, CELLS // layout.columns)), keep_default_na=False,
                dtype={layout.label: str}, encoding="utf-8-sig", skipinitialspace=True,
            ) as chunks,
        ):  # fmt: skip
            for chunk in chunks:
                if chunk.empty:
                    break
                x = chunk[layout.pixels]
                if any(kind.kind not in "iuf" for kind in x.dtypes):
                    raise ValueError("a cell is empty or not a number")
                images.append(_small(x.to_numpy()))
                if layout.label >= 0:
                    labels.append(chunk[layout.label])
                    if (labels[-1] == "").any():
                        raise ValueError("a label is empty")
                size += images[-1].nbytes
                if size > MAX_ARRAYS:
                    raise StageError(f"{path} has more than {MAX_ARRAYS} bytes of pixels")
        if not images:
            raise StageError(f"{path} has a header, but no row")
        x = np.concatenate(images)
        return x, _numbers_or_texts(pd.concat(labels)) if labels else np.full(len(x), "")
    except (ValueError, Warning, OverflowError, EOFError, zlib.error) as error:
        raise StageError(f"{path}: {_first_fault(path, layout) or one_line(error)}") from None


def _numbers_or_texts(labels: pd.Series) -> np.ndarray:
    """Return texts as numbers if all of them are numbers."""
    import pandas as pd

    numbers = pd.to_numeric(labels, errors="coerce")
    if numbers.dtype.kind in "iuf" and numbers.notna().all():
        return numbers.to_numpy()
    return labels.to_numpy(str)


def _small(x: np.ndarray) -> np.ndarray:
    """Return numbers as uint8 if that loses nothing, or else as they are or as float32."""
    if x.dtype.kind in "iu" and x.min() >= 0 and x.max() <= 255:
        return x.astype(np.uint8)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def _check_labels(path: Path, layout: Layout, y: np.ndarray) -> None:
    """Raise StageError if a training label occurs once and is a text, but others are numbers."""
    values, counts = np.unique(y, return_counts=True)
    texts = [text for text in values.tolist() if not _is_number(text)]
    odd = [text for text in texts if counts[values == text] == 1]
    if odd and len(texts) < len(values):
        raise StageError(f"{path}: {_first_fault(path, layout, odd)}")


def _first_fault(path: Path, layout: Layout, wrong: Container[str] = ()) -> str | None:
    """Return what is wrong with the first bad row of a CSV file, with its line number.

    The labels in `wrong` are faults, too.
    """
    try:
        with unpacked(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            reader = csv.reader(text, delimiter=layout.delimiter)
            if layout.header:
                next(reader)
            for row in reader:
                if not row:
                    continue
                where = f"line {reader.line_num}"
                if len(row) != layout.columns:
                    return f"{where} has {len(row)} cells instead of {layout.columns}"
                label = row[layout.label].strip()
                if layout.label >= 0 and not label:
                    return f"{where} has no label"
                if label in wrong:
                    return f"{where}: the label {label!r} occurs once, and others are numbers"
                for i in layout.pixels:
                    if not _is_number(row[i]) or not math.isfinite(float(row[i])):
                        return f"{where}, column {i + 1}: {row[i]!r} is not a number"
    except (ValueError, csv.Error, OSError, EOFError, zlib.error) as error:
        return f"it is damaged or cut off ({one_line(error)})"
    return None
