"""Pictures of any size and tone become what the models were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_transparency_is_white_paper(tmp_path: Path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((4, 4)) == (255, 255, 255)


def test_a_blank_page_is_said_to_be_blank():
    with pytest.raises(StageError, match="blank"):
        as_input(Image.new("RGB", (50, 50), "white"), SHAPE, "mnist", ground=0)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_what_is_no_picture_is_refused_in_a_line(tmp_path: Path, content: bytes):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"x\.png is not a whole PNG or JPEG"):
        read_picture(path)


def test_a_missing_picture_is_named(tmp_path: Path):
    with pytest.raises(StageError, match=r"none\.png does not exist"):
        read_picture(tmp_path / "none.png")
