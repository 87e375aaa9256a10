"""`python -m stages.predict` as a person types it, with trained models and pictures on disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Project
from PIL import Image

from stages.datasets import load_digits
from stages.params import MODELS

PICTURES = 6


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    raw = load_digits()
    return raw.x_test[:PICTURES], raw.y_test[:PICTURES]


@pytest.fixture(scope="module")
def learned(pipeline: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The pipeline's data with a CNN that was trained until it knows its digits."""
    twin = pipeline.at(tmp_path_factory.mktemp("learned") / "project")
    shutil.copytree(pipeline.folder, twin.folder, symlinks=True)
    twin.set({"epochs": 6, "train.batch_size": 32, "cnn.filters": [16, 16], "cnn.dense": 32})
    twin.stage("train", "cnn")
    return twin


def draw(image: np.ndarray, path: Path, size: int, on_paper: bool) -> str:
    """Save a digit enlarged, as dark ink on white paper or light on dark."""
    picture = Image.fromarray(image[..., 0]).resize((size, size), Image.Resampling.BICUBIC)
    if on_paper:
        picture = Image.eval(picture, lambda level: 255 - level)
    picture.save(path)
    return str(path)


def told(output: str) -> dict[str, list[tuple[str, float]]]:
    """Return what the command said: the classes and probabilities of each picture."""
    found: dict[str, list[tuple[str, float]]] = {}
    name = ""
    for line in output.splitlines():
        if row := re.fullmatch(r"  (.{12}) +([\d.]+)%", line):
            found[name].append((row[1].strip(), float(row[2]) / 100))
        else:
            name = Path(line.split(": ")[0]).name
            found[name] = []
    return found


def test_pictures_of_any_size_and_tone_get_their_classes(learned: Project, digits, tmp_path):
    paths = [
        draw(image, tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}", 40 + 90 * i, on_paper=i < 3)
        for i, image in enumerate(digits[0])
    ]
    done = learned.stage("predict", "cnn", *paths)
    answers = told(done.stdout)
    assert list(answers) == [Path(path).name for path in paths]
    for i, line in enumerate(line for line in done.stdout.splitlines() if line[0] != " "):
        assert f"{40 + 90 * i}×{40 + 90 * i}" in line
        assert ("inverted (dark on light in the picture" in line) == (i < 3)
    for rows in answers.values():
        shares = [share for _, share in rows]
        assert len(rows) == 5
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.001
    right = [rows[0][0] == str(y) for rows, y in zip(answers.values(), digits[1], strict=True)]
    assert sum(right) >= PICTURES - 1


@pytest.mark.parametrize("model", MODELS)
def test_every_model_answers(pipeline: Project, digits, tmp_path, model):
    path = draw(digits[0][0], tmp_path / "one.png", 100, on_paper=False)
    assert len(told(pipeline.stage("predict", model, path).stdout)["one.png"]) == 5


@pytest.mark.parametrize("name", ["none.png", "text.png", "cut.jpg", "blank.png"])
def test_what_cannot_be_read_ends_in_a_line(pipeline: Project, digits, tmp_path, name):
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    Image.new("L", (50, 50), "white").save(tmp_path / "blank.png")
    whole = draw(digits[0][0], tmp_path / "whole.jpg", 200, on_paper=True)
    (tmp_path / "cut.jpg").write_bytes(Path(whole).read_bytes()[:900])
    done = pipeline.stage("predict", "cnn", whole, str(tmp_path / name), status=1)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert name in done.stderr


def test_a_model_of_other_data_names_no_classes(clone: Project, digits, tmp_path):
    """What a run on another data set leaves that was stopped before this model's training."""
    path = draw(digits[0][0], tmp_path / "3.png", 40, on_paper=True)
    clone.stage("predict", "cnn", path)
    lock = yaml.safe_load(clone.read("dvc.lock"))
    lock["stages"]["prepare"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    done = clone.stage("predict", "cnn", path, status=1)
    assert done.stderr == (
        "error: cnn was trained on other data than data/prepared has now; `dvc repro`\n"
    )
    clone.path("dvc.lock").unlink()
    manifest = json.loads(clone.read("data/prepared/manifest.json"))
    manifest["class_names"].append("ten")
    path_of = clone.path("data/prepared/manifest.json")
    content = json.dumps(manifest)
    path_of.unlink()  # it may be DVC's, linked
    path_of.write_text(content, encoding="utf-8")
    done = clone.stage("predict", "cnn", path, status=1)
    assert done.stderr.endswith(
        "error: data/models/cnn.keras is for other data than data/prepared; `dvc repro` trains it\n"
    )


def test_an_untrained_model_ends_in_a_line(clone: Project, digits, tmp_path):
    path = draw(digits[0][0], tmp_path / "one.png", 100, on_paper=False)
    clone.path("data/models/cnn.keras").unlink()
    done = clone.stage("predict", "cnn", path, status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "data/models/cnn.keras" in done.stderr
