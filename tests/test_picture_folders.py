"""Folders of pictures: every format, size and colour; bad pictures and folders are named."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tracemalloc
import unicodedata
import zlib

import numpy as np
import pytest
from own_data import PREPARE, X_TEST, Y_TEST, X, Y, has_note, load, refusal, save_pictures
from PIL import Image

from stages.datasets.checks import check
from stages.datasets.splits import split

COLOUR = np.stack([X, X // 2, X // 4], axis=-1)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tiff", "webp", "JPG"])
@pytest.mark.parametrize("x", [X, COLOUR], ids=["grey", "colour"])
def test_every_format_is_read(tmp_path, kind, x):
    options = {"webp": {"lossless": True}, "JPG": {"format": "JPEG", "quality": 100}}.get(kind, {})
    dataset = load(save_pictures(tmp_path, x, Y, kind, **options))
    wanted = np.concatenate([x[label == Y] for label in range(3)])
    if x.ndim == 3:
        wanted = wanted[..., None]
    in_order = np.argsort([int(path.stem) for path in sorted((tmp_path / "a").iterdir())])
    found, wanted = dataset.x_train[: len(in_order)][in_order], wanted[: len(in_order)]
    assert found.shape == wanted.shape
    limit = {"gif": 20, "JPG": 6}.get(kind, 0) if x.ndim == 4 or kind == "JPG" else 0
    assert np.abs(found.astype(int) - wanted).mean() <= limit
    assert dataset.class_names == ("a", "b", "c")
    assert np.bincount(dataset.y_train).tolist() == [20, 20, 20]


def test_parts_are_folders_above_the_classes(tmp_path):
    for part in ("train", "Val", "test"):
        save_pictures(tmp_path / "download" / part, X_TEST, Y_TEST)
    dataset = load(tmp_path)
    assert np.array_equal(dataset.x_train, dataset.x_test)
    assert np.array_equal(dataset.y_val, np.sort(Y_TEST))
    assert has_note(dataset, "read from the folder download")
    shutil.rmtree(tmp_path / "download/test/a")
    assert np.bincount(load(tmp_path).y_test).tolist() == [0, 10, 10]
    shutil.rmtree(tmp_path / "download/test")
    save_pictures(tmp_path / "download", X_TEST[:2], [0, 0], names=["test"])
    assert has_note(load(tmp_path), "test has no class folders, so it is not used")
    (tmp_path / "download/cats").mkdir()
    refusal(tmp_path, "holds two layouts: the parts 'Val', 'test', 'train' and the folder 'cats'")


def test_pictures_of_any_size_are_resized(tmp_path):
    save_pictures(tmp_path, np.full((4, 10, 20), 200, np.uint8), [0, 1, 0, 1])
    Image.new("L", (50, 70), 200).save(tmp_path / "a/big.png")
    refusal(tmp_path, "10×20 pixels, ")
    dataset = load(tmp_path, image_size=8)
    assert dataset.x_train.shape == (5, 8, 8, 1)
    assert (dataset.x_train == 200).all()
    assert has_note(dataset, "10×20 to 70×50 pixels were resized to 8×8")


def test_colours_depth_transparency_frames_and_orientation(tmp_path):
    ramp = np.arange(144, dtype=np.uint8).reshape(12, 12)
    folder = save_pictures(tmp_path, np.stack([ramp, ramp]), [0, 1])
    grey = Image.fromarray(ramp)
    Image.fromarray(ramp.astype(np.uint16) * 257).save(folder / "a/deep.png")
    Image.merge("RGB", [grey] * 3).save(folder / "a/rgb.png")
    Image.merge("LA", [grey, Image.new("L", (12, 12), 255)]).save(folder / "a/opaque.png")
    Image.new("LA", (12, 12), (0, 0)).save(folder / "b/clear.png")
    grey.save(folder / "b/two.gif", save_all=True, append_images=[Image.new("L", (12, 12))])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it upright
    grey.rotate(90).save(folder / "b/turned.webp", lossless=True, exif=exif)
    grey.rotate(90).save(folder / "b/turned.tiff", exif=exif)
    dataset = load(tmp_path)
    assert dataset.x_train.shape == (9, 12, 12, 1)
    clear = (dataset.x_train[..., 0] == 255).all(axis=(1, 2))
    assert clear.sum() == 1
    assert (dataset.x_train[~clear][..., 0] == ramp).all()
    for note in (
        "1 pictures of 16 bits: 0 to 65535 became 0 to 255", "2 pictures with transparency",
        "1 pictures have several frames", "2 pictures were turned upright",
    ):  # fmt: skip
        assert has_note(dataset, note)
    # the last picture is the first in colour
    Image.new("RGB", (12, 12), "red").save(folder / "b/zz.png")
    coloured = load(tmp_path).x_train
    assert coloured.shape == (10, 12, 12, 3)
    assert np.array_equal(coloured[:-1], np.repeat(dataset.x_train, 3, axis=-1))


def test_conversions_of_colours_are_reported(tmp_path):
    grey = Image.fromarray(X[0])
    kinds = {"rgb.png": "RGB", "palette.png": "P", "ink.tiff": "CMYK", "bits.bmp": "1"}
    for name, kind in kinds.items():
        for label in "ab":
            path = tmp_path / label / name
            path.parent.mkdir(exist_ok=True)
            (grey.convert("RGB") if kind == "CMYK" else grey).convert(kind).save(path)
    for note in (
        "2 pictures with a palette became RGB", "2 pictures with CMYK colours became RGB",
        "2 pictures with one bit per pixel became grey", "6 pictures have equal channels; one was",
    ):  # fmt: skip
        assert has_note(load(tmp_path), note)
    Image.new("RGB", (12, 12), "red").save(tmp_path / "b/zz.png")
    coloured = load(tmp_path)
    assert has_note(coloured, "2 pictures are grey and got three equal channels, because others")
    assert not has_note(coloured, "equal channels; one was kept")


@pytest.mark.parametrize(
    ("step", "white", "reads"),
    [(1, 0, 255), (257, 0, 65535), (16, 0, None), (16, 4095, 4095), (1, 1000, 1000)],
)
def test_16_bit_pictures_are_scaled_by_the_largest_value_of_the_folder(
    tmp_path, step, white, reads
):
    x = np.arange(3 * 144).reshape(3, 12, 12) % 256 * step
    for i, name in enumerate("abc"):
        path = tmp_path / name / "1.png"
        path.parent.mkdir()
        Image.fromarray((x[i] // (1 if i else 9)).astype(np.uint16)).save(path)  # the first: dark
    Image.fromarray(X[0]).save(tmp_path / "c/8 bits.png")
    if reads is None:
        refusal(tmp_path, "white can be 4095 (12 bits) or 65535 (16 bits); set prepare.white")
        refusal(tmp_path, "b/1.png goes to 4080, but prepare.white is 2000", white=2000)
        return
    dataset = load(tmp_path, white=white)
    wanted = [x[0] // 9, x[1], x[2]]
    for found, values in zip(dataset.x_train[..., 0], wanted, strict=False):
        assert np.array_equal(found, np.rint(values * (255 / reads)))
    assert np.array_equal(dataset.x_train[3, ..., 0], X[0])
    assert has_note(dataset, f"3 pictures of 16 bits: 0 to {reads} became 0 to 255")


@pytest.mark.parametrize(
    ("n", "side", "colour"),
    [(200, 80, True), pytest.param(3000, 28, False, marks=pytest.mark.slow)],
)
def test_a_folder_needs_little_more_memory_than_its_arrays(tmp_path, n, side, colour):
    """Read, converted, split, shuffled and checked; with the first colours in the last picture."""
    x = np.random.default_rng(0).integers(0, 256, (n, side, side)).astype(np.uint8)
    save_pictures(tmp_path, x, np.arange(n) % 3, "bmp")
    if colour:
        Image.new("RGB", (side, side), "red").save(tmp_path / "c/zz.bmp")
    load(tmp_path)  # imports
    tracemalloc.start()
    dataset = load(tmp_path)
    parts = split(dataset, PREPARE)
    check(parts, dataset.class_names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stored = sum(images.nbytes for images, _ in parts.values())
    assert stored == (n + colour) * side**2 * (3 if colour else 1)
    assert peak < 1.5 * stored + 2**18  # Pillow's buffers


class Terminal(io.StringIO):
    """Text that is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_progress_bar(tmp_path, monkeypatch, capsys):
    save_pictures(tmp_path, X, Y)
    load(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr", Terminal())
    load(tmp_path)
    assert "60/60" in sys.stderr.getvalue()


def test_names_with_spaces_accents_and_line_breaks(tmp_path):
    names = ["Kühe und Kälber", unicodedata.normalize("NFD", "é"), "10", "9"]
    save_pictures(tmp_path, X[:4], range(4), names=names)
    (tmp_path / "9/3.png").rename(tmp_path / "9/line\nbreak.PNG")
    dataset = load(tmp_path)
    assert dataset.class_names == ("9", "10", "Kühe und Kälber", "é")
    assert np.array_equal(dataset.x_train[..., 0], X[[3, 2, 0, 1]])
    (tmp_path / "9").rename(tmp_path / "ni\nne")
    refusal(tmp_path, "the class name 'ni\\nne' should have printable characters only")


def test_a_damaged_picture_is_named_or_left_out(tmp_path):
    save_pictures(tmp_path, X, Y)
    path = next((tmp_path / "b").iterdir())
    good = path.read_bytes()
    for content in (good[: len(good) // 2], b"", b"text"):
        path.write_bytes(content)
        refusal(tmp_path, f"{path.name} is damaged or not a picture")
        dataset = load(tmp_path, skip_damaged=True)
        assert np.bincount(dataset.y_train).tolist() == [20, 19, 20]
        assert has_note(dataset, f"warning: 1 damaged pictures were left out: {path.name}")
    path.unlink()
    path.symlink_to(tmp_path / "b/gone.png")
    refusal(tmp_path, f"{path.name} is a link to a file that does not exist; repair or delete it")
    assert np.bincount(load(tmp_path, skip_damaged=True).y_train).tolist() == [20, 19, 20]
    path.unlink()
    for other in (tmp_path / "b").iterdir():
        other.write_bytes(b"")
    refusal(tmp_path, "class 'b' has no training image", skip_damaged=True)


def bomb(side: int) -> bytes:
    """Return a PNG of a few bytes that claims `side` × `side` pixels."""
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    made = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        made += len(data).to_bytes(4, "big") + kind + data + checksum
    return made


@pytest.mark.parametrize("side", [10_000, 40_000])  # Pillow warns about the first
def test_a_decompression_bomb_is_refused(tmp_path, side):
    save_pictures(tmp_path, X, Y)
    (tmp_path / "a/bomb.png").write_bytes(bomb(side))
    refusal(tmp_path, "could be decompression bomb")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "a/x.png").symlink_to("/etc/hostname"), "is a link that leaves"),
        (lambda f: (f / "d").symlink_to("/etc"), "is a link that leaves"),
        (lambda f: [shutil.rmtree(f / c) for c in "bc"], "has one class only, 'a'"),
        (lambda f: [shutil.rmtree(f / c) or (f / c).mkdir() for c in "abc"], "has no picture"),
        (
            lambda f: [
                (f / "a").rename(f / "train"),
                (f / "b").rename(f / "test"),
                shutil.rmtree(f / "c"),
            ],
            "the folders 'test', 'train' have no class folders",
        ),
        (lambda f: (f / "d").mkdir(), "class 'd' has no training image"),
        (lambda f: shutil.copy(next((f / "a").iterdir()), f), "lies outside the class folders"),
        (lambda f: (f / "a/deeper").mkdir(), "lies below the class folder 'a'"),
        (lambda f: Image.new("F", (12, 12)).save(f / "a/f.tiff"), "its values are of the kind F"),
        (lambda f: (f / "train.csv").touch(), "holds two layouts: train.csv and"),
    ],
)
def test_a_bad_folder_is_named(tmp_path, change, reason):
    save_pictures(tmp_path, X, Y)
    change(tmp_path)
    refusal(tmp_path, reason)


def test_links_inside_the_folder_and_other_files_are_fine(tmp_path):
    save_pictures(tmp_path, X, Y)
    first = sorted((tmp_path / "a").iterdir())[0]
    (tmp_path / "b/link.png").symlink_to(first)
    for name in (".DS_Store", "a/.hidden.png", "a/Thumbs.db", "a/notes.txt", "README.md"):
        (tmp_path / name).write_text("other", encoding="utf-8")
    dataset = load(tmp_path)
    assert np.bincount(dataset.y_train).tolist() == [20, 21, 20]
    assert has_note(dataset, "not used: 2 other files, for example README.md")
    assert os.path.lexists(tmp_path / "b/link.png")
