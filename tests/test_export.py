"""Models without Keras: the same classes in every version."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

pytestmark = pytest.mark.extra


def test_every_version_of_every_model_gives_the_same_classes(clone):
    clone.module("tools.export")
    table = io.StringIO(clone.read("data/export/summary.csv"))
    rows = {(row["model"], row["version"]): row for row in csv.DictReader(table)}
    versions = {version for _, version in rows}
    assert {"Keras", "SavedModel", "LiteRT"} <= versions
    assert set(rows) == {(m, v) for m in ("cnn", "lstm", "hybrid") for v in versions}
    assert {row["other_classes"] for row in rows.values()} == {"0"}
    assert max(float(row["largest_difference"]) for row in rows.values()) < 1e-4
    assert all(float(row["milliseconds"]) > 0 for row in rows.values())
    assert clone.run("git", "status", "--porcelain").stdout == "", "git ignores the exports"


def test_a_model_in_bfloat16_has_no_litert_and_no_onnx(backend, tmp_path, monkeypatch, capsys):
    from tools.export import exported

    monkeypatch.chdir(tmp_path)
    backend.config.set_dtype_policy("mixed_bfloat16")
    model = backend.Sequential([backend.Input((4, 4, 1)), backend.layers.Flatten(),
                                backend.layers.Dense(3, "softmax", dtype="float32"),
                                backend.layers.Dense(2)])  # fmt: skip
    backend.config.set_dtype_policy("float32")
    ((version, (path, call)),) = exported(model, "cnn").items()
    assert (version, path.name) == ("SavedModel", "cnn")
    assert call(np.zeros((1, 4, 4, 1), np.float32)).shape == (1, 2)
    assert capsys.readouterr().out.startswith("no LiteRT or ONNX of cnn: they need float32; set")


def test_a_version_that_disagrees_is_an_error(clone, monkeypatch, capsys):
    from stages.common.cli import StageError
    from tools import export

    monkeypatch.chdir(clone.folder)
    row = {"model": "cnn", "version": "LiteRT", "other_classes": 3}
    monkeypatch.setattr(export, "versions", lambda name, x: [row])  # noqa: ARG005
    monkeypatch.setattr(export, "configure", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["tools.export"])
    with pytest.raises(StageError, match="cnn as LiteRT gives another class than Keras for 3 of"):
        export.main()
    assert "| cnn" in capsys.readouterr().out
