"""The examples in docs/own-data.md: each one-line example makes a dataset that is read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from own_data import PREPARE, has_note, load

from stages.datasets.splits import split

TEXT = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
START = re.search(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)[1]
EXAMPLES = [
    ("data/raw/my.npz", ""),
    *re.findall(r"^\|.*\| `(data/raw/\S+)` \| `(.*)` \|$", TEXT, re.MULTILINE),
]


def labelled(x: np.ndarray, y: np.ndarray) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(x, y, strict=True)}


@pytest.mark.parametrize(("dataset", "line"), EXAMPLES)
def test_a_one_line_example_makes_a_dataset(dataset, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)
    names: dict = {}
    exec(START + line, names)  # noqa: S102
    found = load(Path(dataset), label_column="last")  # for the table without a header
    x, y = names["x"], names["y"]
    assert has_note(found, "prepare.transpose") == ("emnist" in dataset)
    n = len(found.y_train)
    assert n == (100 if "divided" in dataset else 150)
    assert labelled(found.x_train, found.y_train) == labelled(x[:n], y[:n])
    parts = split(found, PREPARE)
    assert all(len(labels) for _, labels in parts.values())


def test_every_format_has_an_example():
    rows = re.findall(r"^\| .*data/raw/", TEXT, re.MULTILINE)
    assert len(rows) == len(EXAMPLES) - 1 == 11
