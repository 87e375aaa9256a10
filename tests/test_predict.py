"""`tools.predict`: pictures, folders and arrays become inputs of the models, and get answers."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, Project
from photographs import CASES, SIDE, drawn, enlarged, framed, paper, shadowed, strokes
from PIL import Image, ImageDraw

from stages import train
from stages.common.cli import StageError
from stages.datasets import picture_folders
from stages.datasets.catalog import load_dataset
from stages.datasets.digits import load_digits
from stages.datasets.published import cache_folder
from tools import predict
from tools.handwriting import INVERTED
from tools.inputs import read_picture
from tools.predict import Look, as_input, as_inputs, look_of

MNIST = Look((28, 28, 1), background=0, mnist=True, own=False)
pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.x_test, data.y_test


def seven(mode: str, paper: int | str, ink: int | str, side: int, width: int) -> Image.Image:
    """Return a "7" drawn with a pen `width` pixels wide."""
    page = Image.new(mode, (side, side), paper)
    line = [(0.2 * side, 0.2 * side), (0.8 * side, 0.2 * side), (0.4 * side, 0.8 * side)]
    ImageDraw.Draw(page).line(line, fill=ink, width=width)
    return page


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


def read(picture: Image.Image) -> np.ndarray:
    return as_input(picture.convert("RGBA"), MNIST)[0]


# --- pictures of digits -------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    lambda page: page, lambda page: shadowed(page, 0.3), lambda page: framed(page, 30),
    lambda page: Image.fromarray(255 - np.asarray(page)),
])  # fmt: skip
def test_a_blank_picture_is_refused(change):
    with pytest.raises(StageError, match="the picture looks blank"):
        read(change(Image.fromarray(paper().astype(np.uint8))))


def test_blank_transparent_pictures_are_refused():
    for colour in ((0, 0, 0, 0), (255, 255, 255, 0), (200, 9, 9, 255)):
        with pytest.raises(StageError, match="the picture looks blank"):
            read(Image.new("RGBA", (90, 90), colour))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 1)])
def test_a_picture_of_a_few_pixels_is_blank(size):
    with pytest.raises(StageError, match="the picture looks blank"):
        read(Image.new("RGB", size, "red"))


@pytest.mark.parametrize("gap", [-20, 0, 100])
def test_two_digits_above_each_other_are_refused(digits, gap):
    """MNIST's margins of 4 of 28 pixels around each digit leave a gap of 60 pixels at least."""
    for one, two in zip(digits[0][:10], digits[0][10:20], strict=True):
        page = np.zeros((2 * SIDE + 100, SIDE))
        for image, top in ((one, 50), (two, 270 + gap)):
            page[top : top + 220, 90:310] += strokes(image, 220)
        with pytest.raises(StageError, match="shows 2 digits above each other; cut it into"):
            read(drawn(np.full((*page.shape, 3), 240.0), page))


@pytest.mark.parametrize("gap", [-60, 0, 100])
def test_two_digits_are_refused(digits, gap):
    """MNIST's margins of 4 of 28 pixels around each digit leave a gap of 60 pixels at least."""
    for one, two in zip(digits[0][:10], digits[0][10:20], strict=True):
        page = np.zeros((SIDE, 2 * SIDE + 100))
        for image, left in ((one, 50), (two, 270 + gap)):
            part = page[90:310, left : left + 220]
            np.maximum(part, strokes(image, 220), out=part)
        if gap < 0:  # they may touch
            page = page[:, 40:480]
        with pytest.raises(StageError, match=r"shows (2 digits next to|more than one digit)"):
            read(drawn(np.full((*page.shape, 3), 240.0), page))
        if gap < 0:
            return


def test_dust_and_a_detached_bar_do_not_count_as_digits():
    page = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(page)
    pen.line([(150, 100), (260, 100)], fill="black", width=24)  # the bar of a 5 or a 7
    seven = page.copy()
    ImageDraw.Draw(seven).line([(250, 140), (190, 320)], fill="black", width=24)
    read(seven)
    pen.line([(150, 140), (150, 190), (240, 200), (250, 290), (140, 320)], fill="black", width=24)
    clean, _ = as_input(page.convert("RGBA"), MNIST)
    for x, y in ((20, 30), (380, 370), (300, 30)):
        pen.ellipse([(x, y), (x + 5, y + 5)], fill="black")
    x, steps = as_input(page.convert("RGBA"), MNIST)
    assert np.array_equal(x, clean)
    assert "specks removed" in steps


@pytest.mark.parametrize(("paper", "ink"), [(65535, 20000), (65535, 0), (0, 50000)])
def test_16_bit_grey_is_read_like_8_bit_grey(tmp_path: Path, paper: int, ink: int):
    made = []
    for mode, tones in (("I;16", (paper, ink)), ("L", (round(paper / 257), round(ink / 257)))):
        seven(mode, *tones, 100, 9).save(tmp_path / "seven.png")
        made.append(as_input(read_picture(tmp_path / "seven.png"), MNIST)[0])
    assert made[0].max() > 200
    assert np.array_equal(*made)


def test_a_thin_line_is_as_bright_and_wide_as_a_thick_one():
    thin, thick = (read(seven("RGB", "white", "black", 600, width)) for width in (3, 40))
    assert min(thin.max(), thick.max()) > 200
    assert likeness(thin, thick) > 0.9


@pytest.mark.extra
def test_a_large_picture_is_read_like_a_small_one(digits):
    small, large = (
        read(drawn(paper(size=(size, 2 * size)), strokes(digits[0][0], size * 3 // 4)))
        for size in (400, 4000)
    )
    assert likeness(small, large) > 0.97


@pytest.mark.slow
def test_the_largest_picture_fits_in_2_gb(tmp_path: Path):
    path = tmp_path / "large.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by EXIF, which needs a copy
    Image.new("RGBA", (9400, 9400), (9, 9, 9, 99)).save(path, exif=exif)
    script = (
        "import resource, pathlib;"
        "from tools.predict import Look, as_input;"
        "from tools.inputs import read_picture;"
        f"picture = read_picture(pathlib.Path({str(path)!r}));"
        "picture.paste('black', (4000, 10, 5000, 9000));"
        "as_input(picture, Look((28, 28, 1), 0, True, False));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2 * 2**30


# --- pictures that look like the data -----------------------------------------------------


def test_the_look_of_the_data_is_found(digits):
    assert look_of(digits[0], "digits") == MNIST
    assert look_of(digits[0], "data/raw/x.csv") == Look((28, 28, 1), 0, mnist=True, own=True)
    white = look_of(255 - digits[0], "data/raw/x.csv")
    assert white == Look((28, 28, 1), 255, mnist=False, own=True)
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    assert look_of(noise, "data/raw/x") == Look((8, 8, 3), None, mnist=False, own=True)
    assert not look_of(np.roll(digits[0], 4, 1), "data/raw/x.csv").mnist


def test_pictures_in_the_format_of_the_data_stay_as_they_are(digits):
    for image in digits[0]:
        x, steps = as_input(Image.fromarray(image[..., 0]).convert("RGBA"), MNIST)
        assert np.array_equal(x, image)
        assert steps == ["28×28", "unchanged"]
        x, steps = as_input(Image.fromarray(255 - image[..., 0]).convert("RGBA"), MNIST)
        assert np.array_equal(x, image)
        assert steps == ["28×28", INVERTED]


def test_pictures_of_mnists_test_images_are_the_inputs_of_evaluate(tmp_path: Path):
    if not (cache_folder() / "mnist.npz").exists():
        pytest.skip(f"mnist.npz is not in {cache_folder()} (set KERAS_HOME)")
    data = load_dataset("mnist")
    look = look_of(data.x_train[: predict.SAMPLE], "mnist")
    for image in data.x_test[:1000]:
        Image.fromarray(image[..., 0]).save(tmp_path / "a.png")
        x, steps = as_input(read_picture(tmp_path / "a.png"), look)
        assert np.array_equal(x, image)
        assert steps == ["28×28", "unchanged"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 7, 1), (9, 7, 3), (9, 7, 4)])
@pytest.mark.parametrize("background", [0, 255])
def test_own_pictures_of_the_size_of_the_data_stay_as_they_are(tmp_path, shape, background):
    """They do so in any tone, and outside MNIST's format."""
    look = Look(shape, background, mnist=shape[0] == 28, own=True)
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    images[:10] //= 4
    for image, (same, said) in zip(images, as_inputs(images, look, "x.npz"), strict=True):
        Image.fromarray(image[..., 0] if shape[2] == 1 else image).save(tmp_path / "a.png")
        x, steps = as_input(read_picture(tmp_path / "a.png"), look)
        assert np.array_equal(x, image)
        assert np.array_equal(same, image)
        assert (steps[1:], said) == (["unchanged"], "unchanged")


def test_own_data_with_opacity_keep_it():
    clear = np.full((50, 40, 4), (250, 240, 240, 9), np.uint8)
    dark, light = (Look((9, 7, 4), level, mnist=False, own=True) for level in (0, 255))
    x, steps = as_input(Image.fromarray(clear), light)
    assert steps == ["40×50", "scaled to 7×9"]
    assert np.abs(x.astype(int) - (250, 240, 240, 9)).max() < 30  # few levels at this opacity
    assert (x[..., 3] == 9).all()
    clear[..., 3] = 255
    x, steps = as_input(Image.fromarray(clear), dark)
    assert steps == ["40×50", INVERTED, "scaled to 7×9"]
    assert (x == (5, 15, 15, 255)).all()
    assert look_of(clear[None, :9, :7] & (0, 0, 0, 255), "data/raw/x.npz").background == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_own_pictures_are_scaled_as_prepare_scales_them(tmp_path: Path, channels: int):
    random = np.random.default_rng(0)
    look = Look((16, 16, channels), None, mnist=False, own=True)
    for i, mode in enumerate(("L", "RGB", "P", "RGBA", "I;16")):
        if channels == 1 and mode in ("RGB", "P", "RGBA"):
            continue  # `prepare` would keep the colours
        size = (40, 23) if i else (16, 16)
        values = random.integers(0, 256, (*size, 4), np.uint8)
        made = Image.fromarray(values[..., 0]) if mode in ("L", "I;16") else Image.fromarray(values)
        made = made.convert("RGB").convert(mode) if mode == "P" else made.convert(mode)
        made.save(tmp_path / "a.png")
        expected, _, _ = picture_folders.read_picture(tmp_path / "a.png", 16)
        x, _ = as_input(read_picture(tmp_path / "a.png"), look)
        assert np.array_equal(x, np.broadcast_to(expected, x.shape)), mode


def test_other_data_keep_colours_and_the_aspect_ratio():
    photo = Image.new("RGBA", (60, 30), (250, 10, 10, 255))
    x, steps = as_input(photo, Look((16, 16, 3), None, mnist=False, own=False))
    assert x[8, 8].tolist() == [250, 10, 10]
    assert steps == ["60×30", "scaled to 16×16"]
    shoe = Image.new("L", (60, 30), 255)
    shoe.paste(90, (10, 5, 50, 25))
    x, steps = as_input(shoe.convert("RGBA"), Look((28, 28, 1), 0, mnist=False, own=False))
    assert INVERTED in steps
    assert (x[0, 0, 0], x[14, 14, 0]) == (0, 165)
    assert np.flatnonzero((x[..., 0] > 80).any(1)).size == pytest.approx(28 / 60 * 20, abs=1)


def test_arrays_of_the_shape_of_the_data_stay_as_they_are_or_are_inverted_together(digits):
    shifted = np.roll(digits[0][:9], 3, axis=2)  # not in MNIST's format
    for given, said in ((shifted, "unchanged"), (255 - shifted, INVERTED)):
        found = list(as_inputs(given, MNIST, "x.npz"))
        assert np.array_equal(np.stack([x for x, _ in found]), shifted)
        assert {steps for _, steps in found} == {said}
    large = np.stack([np.asarray(enlarged(image, 56))[..., None] for image in digits[0][:9]])
    large[4] = 0
    found = list(as_inputs(large, MNIST, "x.npz"))
    assert found[4] == (None, "the picture looks blank: no stroke stands out from the background")
    assert min(likeness(found[i][0], digits[0][i]) for i in range(9) if i != 4) > 0.8
    with pytest.raises(StageError, match=r"x\.npz has images of 2×28×28×1, the training "):
        list(as_inputs(np.zeros((3, 2, 28, 28, 1), np.uint8), MNIST, "x.npz"))


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


@pytest.mark.extra
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
        assert (INVERTED in head) == (i < 3)
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


def answers(learned: Project, pictures: list[np.ndarray]) -> np.ndarray:
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict as probabilities

    model = load_model(learned.path("data/models/cnn.keras"))
    return probabilities(model, np.stack(pictures)).argmax(axis=1)


@pytest.mark.extra
@pytest.mark.parametrize("case", CASES)
def test_the_trained_model_recognizes_digits_in_photos(learned, digits, case):
    """Thin strokes look less like scikit-learn's digits, which are coarse."""
    x, y = digits
    known = np.flatnonzero(answers(learned, list(x)) == y)
    assert len(known) > 0.9 * len(y)
    chosen = known[:: len(known) // 6][:6]
    made = []
    for i in chosen:
        digit, steps = as_input(CASES[case](x[i]).convert("RGBA"), MNIST)
        assert (digit.shape, digit.dtype, digit.max()) == ((28, 28, 1), np.uint8, 255)
        assert steps[-1] == "cropped, scaled and centred like the digits of MNIST"
        made.append(digit)
    likely = [likeness(digit, x[i]) for digit, i in zip(made, chosen, strict=True)]
    assert np.median(likely) > (0.7 if case == "thin pen" else 0.85)
    assert (answers(learned, made) == y[chosen]).sum() >= (4 if case == "thin pen" else 5)


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory) -> dict[str, Path]:
    """The first 12 test digits in each format, mostly without labels."""
    folder = tmp_path_factory.mktemp("files")
    x, y = digits[0][:12], digits[1][:12]
    idx = b"\0\0\x08\x03" + np.array(x.shape[:3], ">i4").tobytes() + x.tobytes()
    table = pd.DataFrame(x.reshape(12, -1)).add_prefix("pixel")
    made = {
        "npz": folder / "only.npz", "named": folder / "parts.npz", "npy": folder / "x.npy",
        "idx": folder / "t10k-images-idx3-ubyte.gz", "csv": folder / "test.csv",
        "labelled": folder / "train.csv.gz", "headerless": folder / "rows.csv",
        "pictures": folder / "pictures", "classes": folder / "classes",
        "idx folder": folder / "idx",
    }  # fmt: skip
    np.savez(made["npz"], anything=x[..., 0] / 255)
    np.savez(made["named"], x_train=x[:7], y_train=y[:7], x_test=x[7:], y_test=y[7:])
    np.save(made["npy"], x.reshape(12, -1))
    made["idx"].write_bytes(gzip.compress(idx))
    table.to_csv(made["csv"], index=False)
    table.assign(label=y).to_csv(made["labelled"], index=False)
    table.to_csv(made["headerless"], index=False, header=False)
    for name in ("pictures", "classes", "idx folder"):
        made[name].mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[..., 0]).save(
            made["pictures"] / f"{i:02}.{'png' if i % 2 else 'bmp'}"
        )
        inner = made["classes"] / f"group {i // 4}"
        inner.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(inner / f"{i:02}.tiff")
    (made["idx folder"] / "train-images-idx3-ubyte").write_bytes(idx)
    labels = b"\0\0\x08\x01" + np.array([12], ">i4").tobytes() + y.astype("u1").tobytes()
    (made["idx folder"] / "train-labels-idx1-ubyte").write_bytes(labels)
    return made


@pytest.mark.parametrize("name", [
    "npz", "named", "npy", "idx", "csv", "labelled", "headerless", "pictures", "classes",
    "idx folder",
])  # fmt: skip
def test_every_format_gets_the_answers_of_evaluate(pipeline, command, files, tmp_path, name):
    expected = np.load(pipeline.path("data/predictions/cnn.npy"))[:12]
    said = command(pipeline, "cnn", files[name], "--csv", tmp_path / "out.csv")
    assert said == f"{tmp_path / 'out.csv'}: 12 images classified, 0 not\n"
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = np.array([[float(row[f"p_{label}"]) for label in range(10)] for row in rows])
    assert np.abs(shares - expected).max() < 1e-6
    for row, each in zip(rows, expected, strict=True):
        assert row["predicted"] == str(each.argmax())
        assert float(row["probability"]) == pytest.approx(each.max(), abs=1e-6)
        assert row["image"].startswith(str(files[name]))
        assert "unchanged" in row["preprocessing"]
        assert row["problem"] == ""
    assert len({row["image"] for row in rows}) == 12


def test_bad_pictures_are_rows_of_the_csv_file(pipeline, command, files, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.new("L", (50, 50), "white").save(folder / "blank.png")
    (folder / "gone.png").symlink_to(folder / "none.png")
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    (folder / "zero.png").write_bytes((files["pictures"] / "01.png").read_bytes())
    out = tmp_path / "out.csv"
    assert "1 images classified, 3 not" in command(pipeline, "cnn", folder, "--csv", out)
    with out.open(encoding="utf-8", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert list(rows) == ["blank.png", "gone.png", "text.png", "zero.png"]
    assert rows["blank.png"]["problem"].startswith("the picture looks blank")
    assert rows["gone.png"]["problem"] == "is a link to a file that does not exist"
    assert rows["text.png"]["problem"].startswith("is damaged or not a picture")
    assert rows["text.png"]["predicted"] == rows["text.png"]["p_0"] == ""
    assert rows["zero.png"]["predicted"] != ""
    with pytest.raises(StageError, match=r"^3 of 4 images were not classified; the first: .*blank"):
        command(pipeline, "cnn", folder)


@pytest.mark.parametrize(("name", "reason"), [
    ("none.png", "does not exist"), ("text.png", "is damaged or not a picture"),
    ("cut.jpg", "is damaged or not a picture"), ("blank.png", "looks blank"),
    ("empty", "has no pictures, CSV files or arrays"), ("labels.npz", "has no images"),
    ("odd.csv", "are not a square picture"), ("wide.npz", "has images of 2×28×28×1"),
])  # fmt: skip
def test_a_bad_file_ends_in_one_line_that_names_it(
    pipeline, command, digits, tmp_path, name, reason
):
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    Image.new("L", (50, 50), "white").save(tmp_path / "blank.png")
    page = drawn(paper(), strokes(digits[0][0], 300))
    page.save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:900])
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "labels.npz", y=digits[1], y_test=digits[1])
    np.savez(tmp_path / "wide.npz", x=np.ones((4, 2, 28, 28, 1)))
    (tmp_path / "odd.csv").write_text("label,a,b,c,d,e\n1,2,3,4,5,6\n", encoding="utf-8")
    for others in ([], [tmp_path / "good.jpg"]):
        with pytest.raises(StageError, match=rf"{re.escape(name)}\b.*{reason}"):
            command(pipeline, "cnn", *others, tmp_path / name)


def test_a_model_of_other_data_is_refused(clone, command, digits, tmp_path):
    """An interrupted run on another dataset leaves the old models next to new data."""
    drawn(paper(), strokes(digits[0][0], 300)).save(tmp_path / "3.png")
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
    drawn(paper(), strokes(digits[0][0], 300)).save(tmp_path / "one.png")
    clone.path("data/models/cnn.keras").unlink()
    done = clone.module("tools.predict", "cnn", str(tmp_path / "one.png"), status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "data/models/cnn.keras" in done.stderr


@pytest.mark.slow
def test_the_model_of_a_run_is_used_from_its_folder(clone, digits):
    drawn(paper(), strokes(digits[0][0], 300)).save(clone.path("one.png"))
    here = clone.module("tools.predict", "cnn", "one.png").stdout
    clone.path("runs").mkdir()
    clone.path("runs/mine").symlink_to(clone.folder)
    assert clone.module("tools.predict", "cnn", "one.png", "--run", "mine").stdout == here
    done = clone.module("tools.predict", "cnn", "one.png", "--run", "other", status=1)
    assert done.stderr == "error: runs/other is missing; `make run` creates such folders\n"
