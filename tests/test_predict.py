"""`tools.predict`: pictures of any size and tone become inputs of the models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT, Project
from PIL import Image, ImageDraw

from stages import train
from stages.common.cli import StageError
from stages.datasets.digits import load_digits
from tools import predict
from tools.predict import as_input, border_level, read_picture

SHAPE = [28, 28, 1]
pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.x_test[:20], data.y_test[:20]


def enlarged(image: np.ndarray, side: int = 310) -> Image.Image:
    return Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BICUBIC)


def on_paper(image: np.ndarray, size: tuple[int, int] = (500, 400)) -> Image.Image:
    """Return a digit in dark ink, away from the centre of a white page."""
    page = Image.new("L", size, 0)
    page.paste(enlarged(image).resize((size[0] * 31 // 50,) * 2), (20, 60))
    return Image.eval(page, lambda level: 255 - level).convert("RGB")


def seven(mode: str, paper: int | str, ink: int | str, side: int, width: int) -> Image.Image:
    """Return a "7" drawn with a pen `width` pixels wide."""
    page = Image.new(mode, (side, side), paper)
    line = [(0.2 * side, 0.2 * side), (0.8 * side, 0.2 * side), (0.4 * side, 0.8 * side)]
    ImageDraw.Draw(page).line(line, fill=ink, width=width)
    return page


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


# --- preprocessing ------------------------------------------------------------------------


def test_dark_ink_on_white_paper_becomes_the_digit_again(digits):
    for image in digits[0]:
        x, steps = as_input(on_paper(image), SHAPE, "digits", background=0)
        assert (x.shape, x.dtype) == ((28, 28, 1), np.uint8)
        assert any("inverted" in step for step in steps)
        assert likeness(x, image) > 0.7


def test_light_on_dark_is_not_inverted(digits):
    picture = enlarged(digits[0][0]).convert("RGB")
    x, steps = as_input(picture, SHAPE, "digits", background=0)
    assert not any("inverted" in step for step in steps)
    assert border_level(x[None]) == 0


def test_a_photograph_for_colour_data_keeps_its_colours():
    picture = Image.new("RGB", (60, 30), (250, 10, 10))
    x, steps = as_input(picture, [16, 16, 3], "photos.npz", background=120)
    assert x[8, 8].tolist() == [250, 10, 10]
    assert not any("inverted" in step for step in steps)


@pytest.mark.parametrize(("paper", "ink"), [(65535, 20000), (65535, 0), (0, 50000)])
def test_16_bit_grey_is_read_like_8_bit_grey(tmp_path: Path, paper: int, ink: int):
    read = []
    for mode, tones in (("I;16", (paper, ink)), ("L", (paper >> 8, ink >> 8))):
        seven(mode, *tones, 100, 9).save(tmp_path / "seven.png")
        picture = read_picture(tmp_path / "seven.png")
        read.append(as_input(picture, SHAPE, "mnist", background=0)[0])
    assert read[0].max() > 200
    assert np.array_equal(*read)


def test_a_thin_line_is_as_bright_as_a_thick_one():
    """Scaled to 20 pixels, a line of 3 of 600 pixels covers a tenth of a pixel: pale grey."""
    thin, thick = (
        as_input(seven("RGB", "white", "black", 600, width), SHAPE, "mnist", background=0)[0]
        for width in (3, 40)
    )
    assert min(thin.max(), thick.max()) > 200
    assert likeness(thin, thick) > 0.6


def test_two_specks_stay_two_specks():
    page = Image.new("RGB", (600, 600), "white")
    page.putpixel((50, 50), (0, 0, 0))
    page.putpixel((550, 550), (0, 0, 0))
    x, _ = as_input(page, SHAPE, "mnist", background=0)
    assert (x > 200).sum() == 2


def test_a_large_picture_is_read_like_a_small_one(digits):
    small, large = (
        as_input(on_paper(digits[0][0], size), SHAPE, "digits", background=0)
        for size in ((500, 400), (4000, 3200))
    )
    assert "4000×3200" in large[1]
    assert likeness(small[0], large[0]) > 0.9


def test_transparency_is_white_paper(tmp_path: Path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"x\.png cannot be read as a PNG or JPEG"):
        read_picture(path)


@pytest.mark.slow
def test_the_largest_picture_fits_in_2_gb(tmp_path: Path):
    path = tmp_path / "large.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by EXIF, which needs a copy
    Image.new("RGBA", (9400, 9400), (9, 9, 9, 99)).save(path, exif=exif)
    script = (
        "import resource, pathlib; from tools.predict import as_input, read_picture;"
        f"picture = read_picture(pathlib.Path({str(path)!r}));"
        "picture.paste('black', (4000, 10, 5000, 9000));"
        "as_input(picture, [28, 28, 1], 'mnist', 0.0);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2 * 2**30


# --- the command --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(pipeline: Project, tmp_path_factory) -> Project:
    """The pipeline's data with a CNN that was trained until it recognizes its digits."""
    copied = pipeline.copy_to(tmp_path_factory.mktemp("learned") / "project")
    copied.set({"epochs": 6, "train.batch_size": 32, "cnn.filters": [16, 16], "cnn.dense": 32})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copied.folder)
        patch.setattr(sys, "argv", ["train", "cnn"])
        train.main()
    return copied


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., str]:
    """Return a function that runs `tools.predict` in a project and returns what it printed."""

    def run(project: Project, *arguments: str | Path) -> str:
        monkeypatch.chdir(project.folder)
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        predict.main()
        return capsys.readouterr().out

    return run


def test_pictures_of_any_size_and_tone_get_their_classes(learned, command, digits, tmp_path):
    paths = []
    for i, image in enumerate(digits[0][:6]):
        picture = enlarged(image, 40 + 90 * i)
        if i < 3:
            picture = Image.eval(picture, lambda level: 255 - level)
        paths.append(tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}")
        picture.save(paths[-1])
    blocks = re.split(r"^(?=\S)", command(learned, "cnn", *paths), flags=re.M)[1:]
    right = 0
    for i, (block, path) in enumerate(zip(blocks, paths, strict=True)):
        head, *rows = block.splitlines()
        assert head.startswith(f"{path}: {40 + 90 * i}×{40 + 90 * i}, ")
        assert ("inverted (the picture is dark on light" in head) == (i < 3)
        shares = [float(row.split()[-1].rstrip("%")) for row in rows]
        assert len(shares) == 5
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 100.1
        right += rows[0].split()[0] == str(digits[1][i])
    assert right >= 5


@pytest.mark.parametrize("model", ["cnn", "lstm", "hybrid"])
def test_every_model_answers(pipeline, command, digits, tmp_path, model):
    enlarged(digits[0][0]).save(tmp_path / "one.png")
    assert len(command(pipeline, model, tmp_path / "one.png").splitlines()) == 6


@pytest.mark.parametrize("name", ["none.png", "text.png", "cut.jpg", "blank.png"])
def test_one_bad_picture_ends_in_one_line_that_names_it(pipeline, command, digits, tmp_path, name):
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    Image.new("L", (50, 50), "white").save(tmp_path / "blank.png")
    on_paper(digits[0][0]).save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:900])
    reason = {"none.png": "does not exist", "blank.png": "looks blank"}.get(name, "cannot be read")
    with pytest.raises(StageError, match=rf"{re.escape(name)}\b.*{reason}"):
        command(pipeline, "cnn", tmp_path / "good.jpg", tmp_path / name)


def test_a_model_of_other_data_is_refused(clone, command, digits, tmp_path):
    """An interrupted run on another dataset leaves the old models next to new data."""
    on_paper(digits[0][0]).save(tmp_path / "3.png")
    lock = yaml.safe_load(clone.read("dvc.lock"))
    lock["stages"]["prepare"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    with pytest.raises(StageError, match=r"^cnn was trained on other data .* run `dvc repro`$"):
        command(clone, "cnn", tmp_path / "3.png")
    clone.path("dvc.lock").unlink()
    path = clone.path("data/prepared/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["class_names"].append("ten")
    path.unlink()  # DVC may have linked it to its cache
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(StageError, match=r"^data/models/cnn\.keras was trained on other data"):
        command(clone, "cnn", tmp_path / "3.png")


def test_a_missing_model_ends_in_one_line(clone, digits, tmp_path):
    on_paper(digits[0][0]).save(tmp_path / "one.png")
    clone.path("data/models/cnn.keras").unlink()
    done = clone.module("tools.predict", "cnn", str(tmp_path / "one.png"), status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "data/models/cnn.keras" in done.stderr


def test_the_model_of_a_run_is_used_from_its_folder(clone, digits):
    on_paper(digits[0][0]).save(clone.path("one.png"))
    here = clone.module("tools.predict", "cnn", "one.png").stdout
    clone.path("runs").mkdir()
    clone.path("runs/mine").symlink_to(clone.folder)
    assert clone.module("tools.predict", "cnn", "one.png", "--run", "mine").stdout == here
    done = clone.module("tools.predict", "cnn", "one.png", "--run", "other", status=1)
    assert done.stderr == "error: runs/other is missing; `make run` creates such folders\n"
