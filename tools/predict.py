"""What a trained model makes of one's own pictures.

    python -m tools.predict cnn three.png four.jpg

Prints for each picture the likeliest classes with their probabilities, and what was done to the
picture to make it look like the data that the model was trained on.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stages.common.arrays import PREPARED, read_manifest, read_split
from stages.common.cli import StageError, run
from stages.common.params import load_params, model_names, read_yaml
from stages.datasets.digits import MNIST_BOX, as_mnist
from stages.training.runtime import choose_threads, configure

LOCK = Path("dvc.lock")
DIGITS = ("mnist", "digits")  # data whose images `as_mnist` resembles
SAMPLE = 500  # training images that tell what the data's ground looks like
SHOWN = 5  # classes
GROUND = 32  # grey levels within which a border counts as plain black or white
LARGEST = 1000  # pixels a side, or a little more; what becomes 20 pixels need not have more
FAINT = 0.2  # of the strongest ink; what is weaker is paper


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify pictures with a trained model.")
    parser.add_argument("model", choices=model_names())
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    arguments = parser.parse_args()

    manifest = read_manifest()
    check_origin(arguments.model)
    ground = border_level(read_split("train").x[:SAMPLE])
    prepared = []
    for path in arguments.images:
        picture = read_picture(path)
        try:
            done = as_input(picture, manifest["image_shape"], manifest["dataset"], ground)
        except StageError as error:
            raise StageError(f"{path}: {error}") from None
        prepared.append(done)
    params = load_params()
    configure(choose_threads(params.train.threads, batch_size=1, batch_norm=False), params.seed)
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict

    file = Path(f"data/models/{arguments.model}.keras")
    model = load_model(file)
    fits = (*manifest["image_shape"], len(manifest["class_names"]))
    if (*model.input_shape[1:], model.output_shape[-1]) != fits:
        raise StageError(f"{file} is for other data than data/prepared; `dvc repro` trains it")
    probabilities = predict(model, np.stack([x for x, _ in prepared]))
    for path, (_, done), row in zip(arguments.images, prepared, probabilities, strict=True):
        print(f"{path}: {', '.join(done)}")
        for label in np.argsort(-row, kind="stable")[:SHOWN]:
            print(f"  {manifest['class_names'][label]:12} {row[label]:7.2%}")


def check_origin(model: str) -> None:
    """Raise StageError where `dvc.lock` says that a model was trained on other prepared data.

    A run on another data set that was stopped leaves such models: their classes have no names.
    """
    if not LOCK.exists():
        return
    lock = read_yaml(LOCK)
    try:
        outs, deps = lock["stages"]["prepare"]["outs"], lock["stages"][f"train_{model}"]["deps"]
        made, used = (
            next(entry["md5"] for entry in entries if entry["path"] == str(PREPARED))
            for entries in (outs, deps)
        )
    except (KeyError, StopIteration, TypeError):  # not of a whole run of `dvc repro`
        return
    if made != used:
        raise StageError(f"{model} was trained on other data than {PREPARED} has now; `dvc repro`")


def read_picture(path: Path) -> Image.Image:
    """Return a PNG or JPEG upright and on white paper where it is transparent.

    Raises
    ------
    StageError
        The file is no such picture, damaged, or so large that it may be a bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                picture = as_rgba(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise StageError(f"{path} does not exist") from None
    except Exception as error:  # Pillow raises whatever its decoders raise
        raise StageError(f"{path} is not a whole PNG or JPEG of sane size ({error})") from None
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert("RGB")


def as_rgba(picture: Image.Image) -> Image.Image:
    """Return a picture in RGBA."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGBA")


def border_level(x: np.ndarray) -> float:
    """Return the median level of the images' outermost pixels, (n, height, width, channels)."""
    edges = (x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1])
    return float(np.median(np.concatenate([edge.ravel() for edge in edges])))


def as_input(
    picture: Image.Image, image_shape: list[int], dataset: str, ground: float
) -> tuple[np.ndarray, list[str]]:
    """Turn a picture into what a model trained on `dataset` reads.

    Returns
    -------
    numpy.ndarray
        uint8, of `image_shape`.
    list of str
        What was done to the picture, in words.
    """
    height, width, channels = image_shape
    done = [f"{picture.width}×{picture.height}"]
    if channels == 1:
        picture = picture.convert("L")
    level = border_level(np.asarray(picture).reshape(1, picture.height, picture.width, -1))
    plain = min(ground, 255 - ground) < GROUND  # photographs have no ground to compare
    if plain and (level < 128) != (ground < 128):
        picture, level = ImageOps.invert(picture), 255 - level
        tones = ("dark on light", "light on dark")
        was, wanted = tones if ground < 128 else tones[::-1]
        done.append(f"inverted ({was} in the picture, {wanted} in the data)")
    if dataset in DIGITS:
        done.append("cut out, scaled and centred by mass as MNIST's digits are")
        small = picture.reduce(max(1, max(picture.size) // LARGEST))
        return as_mnist(ink(np.asarray(small, dtype=np.float64), level))[..., None], done
    done.append(f"scaled to {width}×{height}")
    fill = round(level)
    padded = ImageOps.pad(picture, (width, height), color=fill if channels == 1 else (fill,) * 3)
    return np.asarray(padded).reshape(height, width, channels), done


def ink(grey: np.ndarray, level: float) -> np.ndarray:
    """Return the ink of a bright drawing on ground `level`: cut out, square, up to 255.

    Raises
    ------
    StageError
        There is nothing on the paper.
    """
    above = np.clip(grey - level, 0, None)
    strongest = above.max()
    if strongest < GROUND:
        raise StageError("it is blank: nothing on it stands out from its border")
    above[above < FAINT * strongest] = 0
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    cut = above[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(cut.shape)
    top, left = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square = np.zeros((side, side), np.float32)
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    if side > MNIST_BOX:  # averaging: `as_mnist` interpolates, which would skip pixels
        smaller = Image.fromarray(square).resize((MNIST_BOX, MNIST_BOX), Image.Resampling.BOX)
        square = np.asarray(smaller)
    return square.astype(np.float64) * (255 / square.max())  # a thin line is pale when averaged


if __name__ == "__main__":
    run(main)
