"""CSV files with a label and the pixels of an image per row; mistakes are named with their line."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from own_data import X_TEST, Y_TEST, X, Y, has_note, load, refusal

from stages.datasets import csv_tables

HEADER = ["label", *(f"pixel{i}" for i in range(144))]


def table(
    x: np.ndarray = X, y: np.ndarray | None = Y, header: list[str] | None = None, sep: str = ","
) -> str:
    """Return images as CSV, the labels first."""
    rows = [[str(v) for v in image.ravel()] for image in x]
    if y is not None:
        rows = [[str(label), *row] for label, row in zip(y, rows, strict=True)]
    return "".join(sep.join(row) + "\n" for row in ([header] if header else []) + rows)


DARK = X * (np.arange(144).reshape(12, 12) < 143)  # the last corner is black
LAST = "".join(
    f"{','.join(map(str, image.ravel()))},{label}\n" for image, label in zip(X, Y, strict=True)
)
HEADED = table(header=HEADER)
INDEX = table(X, Y, ["label", *map(str, range(144))])


@pytest.mark.parametrize(
    ("text", "x", "note", "settings"),
    [
        (HEADED, X, "", {}),
        (table(header=["label", *(f"{i}x{j}" for i in range(12) for j in range(12))]), X, "", {}),
        (INDEX, X, "", {}),
        (table(DARK), DARK, "no header; the first column has the labels", {}),
        (table(np.repeat(DARK, 3, axis=2)), DARK, "of 3 colours", {"channels": "last"}),
        (table(), X, "no header; the first", {"label_column": "first"}),
        (LAST, X, "no header; the last", {"label_column": "last"}),
        ("\ufeff" + table(header=HEADER, sep=";"), X, "", {}),
        (table(header=HEADER).replace("\n", "\r\n") + "\r\n", X, "", {}),
        (table(X / 255, Y, HEADER), X, "0 to 1 (float32) became 0 to 255", {}),
        (table(X, np.array(["a", "b", "cé"])[Y], HEADER), X, "labels 'a', 'b', 'cé'", {}),
        (table(X, np.array(["NA", "None", "null"])[Y], HEADER), X, "labels 'NA', 'None', '", {}),
        (table(X, np.array(["0", "9", "A"])[Y], HEADER), X, "labels '0', '9', 'A'", {}),
        (f"id,{HEADED}".replace("\n", "\n7,").removesuffix("7,"), X, "column 'id'", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_one_file_is_read(tmp_path, text, x, note, settings, packed):
    path = tmp_path / ("a.csv.gz" if packed else "a.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    dataset = load(path, **settings)
    for channel in np.moveaxis(dataset.x_train, -1, 0):
        assert np.array_equal(channel, x)
    assert np.array_equal(dataset.y_train, Y)
    assert dataset.x_test is None
    assert has_note(dataset, note) if note else True


def test_a_file_that_is_sorted_by_class_is_read_as_a_whole(tmp_path):
    """Its first labels are equal, and a corner of its first images is not."""
    many, path = np.repeat(np.arange(60)[np.argsort(Y)], 10), tmp_path / "a.csv"
    path.write_text(table(DARK[many], Y[many]), encoding="utf-8")
    assert np.array_equal(load(path).y_train, Y[many])
    path.write_text(table(X[many], Y[many]), encoding="utf-8")
    refusal(path, "set prepare.label_column=first or last")


def test_a_gzipped_file_with_long_rows_needs_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "CELLS", 2**16)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(
        gzip.compress(b"".join(b"%d%s\n" % (i % 2, b",0" * 24**2) for i in range(1500)))
    )
    assert path.stat().st_size < 2**14
    load(path)  # imports
    tracemalloc.start()
    stored = load(path).x_train.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stored == 1500 * 24**2
    assert peak < 8 * stored, "all values at once, as int64"


def test_a_folder_holds_a_training_and_a_test_file(tmp_path):
    train, test = tmp_path / "mnist_train.csv", tmp_path / "mnist_test.csv"
    train.write_text(table(header=HEADER), encoding="utf-8")
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n", encoding="utf-8")
    test.write_text(table(X_TEST, Y_TEST, HEADER), encoding="utf-8")
    dataset = load(tmp_path)
    assert np.array_equal(dataset.x_test[..., 0], X_TEST)
    assert np.array_equal(dataset.y_test, Y_TEST)
    test.write_text(table(X_TEST, None, HEADER[1:]), encoding="utf-8")
    dataset = load(tmp_path)
    assert dataset.x_test is None
    assert has_note(dataset, "mnist_test.csv has no labels, so it is not used")
    (tmp_path / "train.csv").touch()
    refusal(tmp_path, "mnist_train.csv and train.csv both look like the part 'train'")


GOOD = table(header=HEADER).splitlines()
ROW = GOOD[3].split(",")
FIRST = table(DARK).split("\n")[0].split(",")


def with_row(row: list[str]) -> str:
    return "\n".join([*GOOD[:3], ",".join(row), *GOOD[4:]])


def before_rows(row: list[str]) -> str:
    """Return a file without a header that starts with this row."""
    return ",".join(row) + "\n" + table(DARK)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (with_row(ROW[:-1]), "line 4 has 144 cells instead of 145"),
        (with_row([*ROW, "0"]), "line 4 has 146 cells instead of 145"),
        (with_row([*ROW[:5], "x", *ROW[6:]]), "line 4, column 6: 'x' is not a number"),
        (with_row([*ROW[:5], "", *ROW[6:]]), "line 4, column 6: '' is not a number"),
        (with_row([*ROW[:5], "nan", *ROW[6:]]), "line 4, column 6: 'nan' is not a number"),
        (with_row(["", *ROW[1:]]), "line 4 has no label"),
        (with_row([*ROW[:5], "300", *ROW[6:]]), "4095 (12 bits) or 65535 (16 bits)"),
        (table(X, Y, [*HEADER[:3], "class", *HEADER[4:]]), "'label' and 'class' both look like"),
        (table(X.reshape(60, -1)[:, 1:], Y, [HEADER[0], *HEADER[2:]]), "143 pixel columns are not"),
        (table(X.reshape(60, -1)[:, 1:], Y, [HEADER[0], HEADER[1], *HEADER[3:]]),
         "column pixel1 is missing"),
        (table(X, None, HEADER[1:]), "144 pixel columns but no label"),
        (table(), "set prepare.label_column=first or last"),
        (table(X.reshape(60, -1)[:, 1:], Y), "144 pixel columns but no label"),
        (table(X.reshape(60, -1)[:, 2:], Y), "143 columns are not a label and a square picture"),
        ("some text, with a comma\n", "a row has 2 cells"),
        (GOOD[0], "has a header, but no row"),
        (with_row(["x", *ROW[1:]]), "line 4: the label 'x' occurs once, and others are numbers"),
        (before_rows([*FIRST[:5], "x", *FIRST[6:]]), "line 1, column 6: 'x' is not a number"),
        (before_rows([*FIRST[:5], "", *FIRST[6:]]), "line 1, column 6: '' is not a number"),
        (before_rows(FIRST[:-9]), "line 1 has 136 cells instead of 145"),
        (before_rows(FIRST[:-1]), "line 1 has 144 cells instead of 145"),
        (before_rows([*FIRST, "0"]), "line 1 has 146 cells instead of 145"),
    ],
)  # fmt: skip
def test_a_bad_row_or_column_is_named(tmp_path, text, reason):
    path = Path(tmp_path / "a.csv")
    path.write_text(text, encoding="utf-8")
    refusal(path, reason)


def test_a_damaged_or_binary_file_is_named(tmp_path):
    content = gzip.compress(table(header=HEADER).encode())
    (tmp_path / "a.csv.gz").write_bytes(content[:-20])
    refusal(tmp_path / "a.csv.gz", "damaged or cut off")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe1,2")
    refusal(tmp_path / "b.csv", "is not a CSV file")
