"""Pictures of any size and tone become what the models were trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

from stages.datasets import load_digits
from stages.files import StageError
from stages.predict import as_input, border_level, read_picture

SHAPE = [28, 28, 1]


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return load_digits().x_test[:20]


def enlarged(image: np.ndarray) -> Image.Image:
    big = Image.fromarray(image[..., 0]).resize((310, 310), Image.Resampling.BICUBIC)
    wide = Image.new("L", (500, 400), 0)
    wide.paste(big, (20, 60))
    return wide


def test_dark_ink_on_white_paper_comes_back_as_the_digit_it_was(digits):
    for image in digits:
        paper = Image.eval(enlarged(image), lambda level: 255 - level).convert("RGB")
        x, done = as_input(paper, SHAPE, "digits", ground=0)
        assert x.shape == (28, 28, 1)
        assert x.dtype == np.uint8
        assert any("inverted" in step for step in done)
        likeness = np.corrcoef(x.ravel().astype(float), image.ravel().astype(float))[0, 1]
        assert likeness > 0.7


def test_light_on_dark_is_not_inverted(digits):
    x, done = as_input(enlarged(digits[0]).convert("RGB"), SHAPE, "digits", ground=0)
    assert not any("inverted" in step for step in done)
    assert border_level(x[None]) == 0


def test_a_photograph_for_colour_data_keeps_its_colours():
    picture = Image.new("RGB", (60, 30), (250, 10, 10))
    x, done = as_input(picture, [16, 16, 3], "photos.npz", ground=120)
    assert x.shape == (16, 16, 3)
    assert x[8, 8].tolist() == [250, 10, 10]
    assert not any("inverted" in step for step in done)


def seven(mode: str, paper: int, ink: int, side: int, width: int) -> Image.Image:
    """Return a "7" drawn with a pen `width` pixels wide."""
    page = Image.new(mode, (side, side), paper)
    line = [(0.2 * side, 0.2 * side), (0.8 * side, 0.2 * side), (0.4 * side, 0.8 * side)]
    ImageDraw.Draw(page).line(line, fill=ink, width=width)
    return page


@pytest.mark.parametrize(("paper", "ink"), [(65535, 20000), (65535, 0), (0, 50000)])
def test_16_bits_of_grey_are_as_8(tmp_path: Path, paper: int, ink: int):
    shown = []
    for mode, tones in (("I;16", (paper, ink)), ("L", (paper >> 8, ink >> 8))):
        seven(mode, *tones, 100, 9).save(tmp_path / "seven.png")
        shown.append(as_input(read_picture(tmp_path / "seven.png"), SHAPE, "mnist", ground=0)[0])
    assert shown[0].max() > 200
    assert np.array_equal(*shown)


def test_a_thin_line_is_as_bright_as_a_thick_one():
    """Scaled down to 20 pixels, 3 of 600 would be a tenth of one: pale grey."""
    thin, thick = (
        as_input(seven("RGB", "white", "black", 600, width), SHAPE, "mnist", ground=0)[0]
        for width in (3, 40)
    )
    assert thin.max() > 200
    assert thick.max() > 200
    assert np.corrcoef(thin.ravel().astype(float), thick.ravel().astype(float))[0, 1] > 0.6


def test_two_specks_are_two_specks():
    page = Image.new("RGB", (600, 600), "white")
    page.putpixel((50, 50), (0, 0, 0))
    page.putpixel((550, 550), (0, 0, 0))
    x, _ = as_input(page, SHAPE, "mnist", ground=0)
    assert (x > 200).sum() == 2


def test_transparency_is_white_paper(tmp_path: Path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((4, 4)) == (255, 255, 255)


def test_a_blank_page_is_said_to_be_blank():
    with pytest.raises(StageError, match="blank"):
        as_input(Image.new("RGB", (50, 50), "white"), SHAPE, "mnist", ground=0)


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"x" * 40],
    ids=["empty", "another format", "a header alone"],
)
def test_what_is_no_picture_is_refused_in_a_line(tmp_path: Path, content: bytes):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"x\.png is not a whole PNG or JPEG"):
        read_picture(path)


def test_a_large_picture_is_read_as_its_smaller_self(digits):
    paper = Image.eval(enlarged(digits[0]), lambda level: 255 - level)
    large = paper.resize((4000, 3200), Image.Resampling.BICUBIC)
    (x, _), (y, done) = (
        as_input(picture.convert("RGB"), SHAPE, "digits", ground=0) for picture in (paper, large)
    )
    assert "4000×3200" in done
    assert np.corrcoef(x.ravel().astype(float), y.ravel().astype(float))[0, 1] > 0.97


@pytest.mark.slow
def test_the_largest_picture_that_is_read_fits_in_2_gb(tmp_path: Path):
    path = tmp_path / "large.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned, which copies it
    Image.new("RGBA", (9400, 9400), (9, 9, 9, 99)).save(path, exif=exif)
    script = (
        "import resource, pathlib; from stages.predict import as_input, read_picture;"
        f"picture = read_picture(pathlib.Path({str(path)!r}));"
        "picture.paste('black', (4000, 10, 5000, 9000));"
        "as_input(picture, [28, 28, 1], 'mnist', 0.0);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2 * 2**30


def test_a_missing_picture_is_named(tmp_path: Path):
    with pytest.raises(StageError, match=r"none\.png does not exist"):
        read_picture(tmp_path / "none.png")
