"""Classify your own pictures with a trained model.

    python -m tools.predict cnn three.png four.jpg
    python -m tools.predict cnn three.png --run digits     with the model of `make run`

Prints, for each picture, the most likely classes with their probabilities, and how the picture was
preprocessed.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stages.common.arrays import PREPARED, read_manifest, read_split
from stages.common.cli import StageError, run
from stages.common.params import load_params, model_names, read_yaml
from stages.datasets.digits import MNIST_BOX, as_mnist
from stages.training.runtime import choose_threads, configure

RUNS = Path("runs")
LOCK = Path("dvc.lock")
DIGITS = ("mnist", "digits")  # datasets whose images look like the output of `as_mnist`
SAMPLE = 500  # training images used to find the brightness of the data's background
SHOWN = 5  # classes
PLAIN = 32  # a background this close to black or white, in grey levels, is plain
LARGEST = 1000  # pixels per side that preprocessing needs at most; larger pictures are shrunk first
FAINT = 0.2  # strokes fainter than this share of the strongest ink count as paper


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify pictures with a trained model.")
    parser.add_argument("model", choices=model_names())
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--run", metavar="NAME", help="use the models in runs/NAME")
    arguments = parser.parse_args()
    here = Path.cwd()
    if arguments.run:
        enter_run(arguments.run)

    manifest = read_manifest()
    if len(manifest["image_shape"]) != 3:
        raise StageError(
            f"this tool classifies single pictures, but {manifest['dataset']} has sequences of them"
        )
    check_data(arguments.model)
    background = border_level(read_split("train").x[:SAMPLE])
    inputs, steps = [], []
    for path in arguments.images:
        picture = read_picture(here / path if arguments.run else path)
        try:
            x, done = as_input(picture, manifest["image_shape"], manifest["dataset"], background)
        except StageError as error:
            raise StageError(f"{path}: {error}") from None
        inputs.append(x)
        steps.append(done)
    params = load_params()
    configure(choose_threads(params.train.threads, batch_size=1, batch_norm=False), params.seed)
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict

    file = Path(f"data/models/{arguments.model}.keras")
    model = load_model(file)
    expected = (*manifest["image_shape"], len(manifest["class_names"]))
    if (*model.input_shape[1:], model.output_shape[-1]) != expected:
        raise StageError(f"{file} was trained on other data than {PREPARED}; run `dvc repro`")
    probabilities = predict(model, np.stack(inputs))
    for path, done, row in zip(arguments.images, steps, probabilities, strict=True):
        print(f"{path}: {', '.join(done)}")
        for label in np.argsort(-row, kind="stable")[:SHOWN]:
            print(f"  {manifest['class_names'][label]:12} {row[label]:7.2%}")


def enter_run(name: str) -> None:
    """Make `runs/NAME` the working directory."""
    try:
        os.chdir(RUNS / name)
    except OSError:
        raise StageError(f"{RUNS / name} is missing; `make run` creates such folders") from None


def check_data(model: str) -> None:
    """Raise StageError if dvc.lock says that the model was trained on other prepared data.

    An interrupted run on another dataset leaves a model without names for its classes.
    """
    if not LOCK.exists():
        return
    lock = read_yaml(LOCK)
    try:
        outs, deps = lock["stages"]["prepare"]["outs"], lock["stages"][f"train_{model}"]["deps"]
        prepared, used = (
            next(entry["md5"] for entry in entries if entry["path"] == str(PREPARED))
            for entries in (outs, deps)
        )
    except (KeyError, StopIteration, TypeError):  # dvc.lock is not from a complete run
        return
    if prepared != used:
        raise StageError(f"{model} was trained on other data than {PREPARED}; run `dvc repro`")


def read_picture(path: Path) -> Image.Image:
    """Return a PNG or JPEG as RGB, upright, with white where it is transparent.

    Raises
    ------
    StageError
        The file is missing, damaged, in another format, or too large to decode safely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                picture = as_rgba(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise StageError(f"{path} does not exist") from None
    except Exception as error:  # Pillow's decoders raise many types
        raise StageError(
            f"{path} cannot be read as a PNG or JPEG: damaged, another format, or too large "
            f"({error})"
        ) from None
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB")


def as_rgba(picture: Image.Image) -> Image.Image:
    """Return a picture as RGBA, 8 bits per channel."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGBA")


def border_level(x: np.ndarray) -> float:
    """Return the median of the images' outermost pixels; `x` is (n, height, width, channels)."""
    edges = (x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1])
    return float(np.median(np.concatenate([edge.ravel() for edge in edges])))


def as_input(
    picture: Image.Image, image_shape: list[int], dataset: str, background: float
) -> tuple[np.ndarray, list[str]]:
    """Preprocess a picture to look like an image of `dataset`.

    Parameters
    ----------
    picture
        RGB, any size.
    image_shape
        Height, width and channels of the dataset's images.
    background
        `border_level` of the dataset's images.

    Returns
    -------
    numpy.ndarray
        uint8, of shape `image_shape`.
    list of str
        The preprocessing steps, in words.

    Raises
    ------
    StageError
        The dataset has digits, and the picture is blank.
    """
    height, width, channels = image_shape
    steps = [f"{picture.width}×{picture.height}"]
    if channels == 1:
        picture = picture.convert("L")
    level = border_level(np.asarray(picture).reshape(1, picture.height, picture.width, -1))
    plain = min(background, 255 - background) < PLAIN  # photographs have no plain background
    if plain and (level < 128) != (background < 128):
        picture, level = ImageOps.invert(picture), 255 - level
        tones = ("dark on light", "light on dark")
        was, wanted = tones if background < 128 else tones[::-1]
        steps.append(f"inverted (the picture is {was}, the data are {wanted})")
    if dataset in DIGITS:
        steps.append("cropped, scaled and centred like the digits of MNIST")
        small = picture.reduce(max(1, max(picture.size) // LARGEST))
        return as_mnist(ink(np.asarray(small, dtype=np.float64), level))[..., None], steps
    steps.append(f"scaled to {width}×{height}")
    fill = round(level)
    padded = ImageOps.pad(picture, (width, height), color=fill if channels == 1 else (fill,) * 3)
    return np.asarray(padded).reshape(height, width, channels), steps


def ink(grey: np.ndarray, level: float) -> np.ndarray:
    """Return the strokes of a light drawing, cropped to a square and scaled to a maximum of 255.

    `grey` is the drawing, 0 to 255, (height, width); `level` is the brightness of its background.
    A blank drawing raises StageError.
    """
    above = np.clip(grey - level, 0, None)
    strongest = above.max()
    if strongest < PLAIN:
        raise StageError("the picture looks blank: no stroke stands out from the background")
    above[above < FAINT * strongest] = 0
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    cut = above[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(cut.shape)
    top, left = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square = np.zeros((side, side), np.float32)
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    if side > MNIST_BOX:  # average pixels: the interpolation in `as_mnist` would skip some
        smaller = Image.fromarray(square).resize((MNIST_BOX, MNIST_BOX), Image.Resampling.BOX)
        square = np.asarray(smaller)
    return square.astype(np.float64) * (255 / square.max())  # averaging makes thin lines pale


if __name__ == "__main__":
    run(main)
