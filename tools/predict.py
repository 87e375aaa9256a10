"""Classify your own pictures with a trained model.

    python -m tools.predict cnn three.png four.jpg
    python -m tools.predict cnn three.png --run digits     with the model of `make run`
    python -m tools.predict cnn photos test.csv --csv out.csv

Reads pictures, folders, and the other formats of `dataset`, with or without labels. Prints, for
each image, the most likely classes with their probabilities, and how the image was preprocessed.
`--csv` writes one row per image instead.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from stages.common.arrays import PREPARED, read_manifest, read_split
from stages.common.cli import StageError, one_line, run
from stages.common.files import write_csv
from stages.common.params import ADDED, DATASETS, Params, load_params, model_names, read_yaml
from stages.datasets.picture_folders import on_white, white_of
from stages.training.runtime import choose_threads, configure
from tools.handwriting import INVERTED, in_format, read_digit
from tools.inputs import files_in, is_picture, read_arrays, read_picture

RUNS = Path("runs")
LOCK = Path("dvc.lock")
SAMPLE = 500  # training images that show how the data look
USUAL = (
    0.95  # of them have MNIST's format if all have it; some of EMNIST's and QMNIST's digits vary
)
SHOWN = 5  # classes
LEVELS = 32  # a background within so many grey levels of black or white is plain
PLAIN = 0.75  # of the border pixels are of the background, if it is plain
COLUMNS = ("image", "predicted", "probability", "preprocessing", "problem")


@dataclass(frozen=True)
class Look:
    """How the training images look: their shape, background, and whether they have MNIST's format.

    `background` is 0 or 255 if it is black or white in most images, and None otherwise. `own` says
    that they are the user's: then pictures were stretched to their shape.
    """

    shape: tuple[int, ...]
    background: int | None
    mnist: bool
    own: bool


@dataclass(frozen=True)
class Found:
    """An image that the user named: its input `x` for the model, or None and the problem."""

    name: str
    x: np.ndarray | None
    said: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify pictures with a trained model.")
    parser.add_argument("model", choices=model_names())
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a picture, folder, .npz, IDX or CSV"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per image to FILE")
    parser.add_argument("--run", metavar="NAME", help="use the models in runs/NAME")
    arguments = parser.parse_args()
    here = Path.cwd()
    if arguments.run:
        enter_run(arguments.run)

    manifest, params = read_manifest(), load_params()
    check_data(arguments.model)
    look = look_of(np.asarray(read_split("train").x[:SAMPLE]), manifest["dataset"])
    found = [
        each
        for path in arguments.images
        for each in read_images(here / path if arguments.run else path, path, look, params)
    ]
    usable = [each.x for each in found if each.x is not None]
    problems = [f"{each.name}: {each.said}" for each in found if each.x is None]
    rows = iter(probabilities_of(arguments.model, params, manifest, usable) if usable else ())
    answers = [None if each.x is None else next(rows) for each in found]
    if arguments.csv:
        names = manifest["class_names"]
        write_csv(
            here / arguments.csv,
            [as_row(each, row, names) for each, row in zip(found, answers, strict=True)],
            [*COLUMNS, *(f"p_{name}" for name in names)],
        )
        print(f"{arguments.csv}: {len(usable):,} images classified, {len(problems):,} not")
        if usable:
            return
    elif len(found) > 1 or usable:
        for each, row in zip(found, answers, strict=True):
            print_answer(each, row, manifest["class_names"])
    if problems:
        many = f"{len(problems):,} of {len(found):,} images were not classified; the first: "
        raise StageError((many if len(found) > 1 else "") + problems[0])


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


# --- inputs -------------------------------------------------------------------------------


def look_of(x: np.ndarray, dataset: str) -> Look:
    """Return how the training images `x`, uint8 (n, …, height, width, channels), look."""
    edges = border(x)
    shares = {level: np.mean(np.abs(edges - level) < LEVELS) for level in (0, 255)}
    plain = [level for level, share in shares.items() if share > PLAIN]
    mnist = in_format(x).mean() >= USUAL
    return Look(x.shape[1:], plain[0] if plain else None, mnist, dataset not in DATASETS)


def border(x: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of images (n, …, height, width, channels) as one row of int16.

    A fourth channel, the opacity, is left out.
    """
    rows, columns = x[..., [0, -1], :, :3], x[..., :, [0, -1], :3]
    return np.concatenate([rows.ravel(), columns.ravel()]).astype(np.int16)


def other_tone(x: np.ndarray, look: Look) -> bool:
    """Return whether images are light where the data are dark, or dark where they are light."""
    return look.background is not None and (np.median(border(x)) < 128) != (look.background < 128)


def read_images(path: Path, shown: Path, look: Look, params: Params) -> Iterator[Found]:
    """Yield the images at a path, with names that start with `shown`.

    Bad pictures are yielded with their problem. A bad file of arrays raises StageError, and so do
    pictures if the data are sequences.
    """
    prepare = params.prepare
    if not look.own:
        prepare = prepare.model_copy(update=ADDED["prepare"])  # they are for own data only
    files = files_in(path)
    white = white_of(files, prepare.white)
    for file in files:
        name = one_line(shown / file.relative_to(path))
        if is_picture(file):
            if len(look.shape) != 3:
                raise StageError(
                    f"{name} is one picture, but {params.dataset} has sequences of them; give an "
                    f".npz file of sequences ({'×'.join(map(str, look.shape))} each)"
                )
            try:
                x, steps = as_input(read_picture(file, lambda: white), look)
            except StageError as error:
                yield Found(name, None, str(error).removeprefix(f"{file} "))
            else:
                yield Found(name, x, ", ".join(steps))
            continue
        for array, images in read_arrays(file, prepare).items():
            title = f"{name}: {array}" if array else name
            for i, (x, said) in enumerate(as_inputs(images, look, title)):
                yield Found(f"{title}[{i}]", x, said)


def as_inputs(
    images: np.ndarray, look: Look, title: str
) -> Iterator[tuple[np.ndarray | None, str]]:
    """Yield arrays of images, uint8 (n, …, height, width, channels), as inputs of the model.

    Images of the data's shape stay as they are; those for a built-in dataset may all be inverted.
    """
    if images.shape[1:] == look.shape:
        inverted = not look.own and other_tone(images[:SAMPLE], look)
        for x in images:
            yield (255 - x, INVERTED) if inverted else (x, "unchanged")
        return
    if len(look.shape) != 3 or images.ndim != 4:
        raise StageError(
            f"{title} has images of {'×'.join(map(str, images.shape[1:]))}, the training data of "
            f"{'×'.join(map(str, look.shape))}"
        )
    for image in images:
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGBA")
        try:
            x, steps = as_input(picture, look)
        except StageError as error:
            yield None, str(error)
        else:
            yield x, ", ".join(steps)


def as_input(picture: Image.Image, look: Look) -> tuple[np.ndarray, list[str]]:
    """Preprocess a picture to look like the training images.

    Pictures that look like them already stay as they are, and so do those of the size of own data.

    Parameters
    ----------
    picture
        RGBA, any size.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape `look.shape`.
    list of str
        The preprocessing steps, in words.

    Raises
    ------
    StageError
        The data have MNIST's format, and the picture is blank or shows several digits.
    """
    height, width, channels = look.shape
    steps = [f"{picture.width}×{picture.height}"]
    flat = picture if channels == 4 else on_white(picture).convert("L" if channels == 1 else "RGB")
    x = np.asarray(flat).reshape(*flat.size[::-1], channels)
    if look.own and x.shape == look.shape:
        return x, [*steps, "unchanged"]
    if look.mnist:
        for each, said in ((x, "unchanged"), (255 - x, INVERTED)):
            if in_format(each[None])[0]:
                return each, [*steps, said]
        x, done = read_digit(picture)
        return x, steps + done
    if other_tone(x[None], look):
        bands = flat.split()  # the fourth is the opacity
        flat = Image.merge(flat.mode, [*map(ImageOps.invert, bands[:3]), *bands[3:]])
        steps.append(INVERTED)
    if flat.size == (width, height):
        return np.asarray(flat).reshape(look.shape), steps
    steps.append(f"scaled to {width}×{height}")
    if look.own:  # as `prepare` scales pictures
        flat = flat.resize((width, height), Image.Resampling.BILINEAR)
    else:
        fill = int(np.median(border(x[None])))
        fill = 255 - fill if INVERTED in steps else fill
        flat = ImageOps.pad(flat, (width, height), color=(fill,) * channels)
    return np.asarray(flat).reshape(look.shape), steps


# --- answers ------------------------------------------------------------------------------


def probabilities_of(
    name: str, params: Params, manifest: dict[str, Any], inputs: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the class probabilities (n, classes) that the model `name` gives to the inputs."""
    configure(choose_threads(params.train.threads, batch_size=1, batch_norm=False), params.seed)
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict

    file = Path(f"data/models/{name}.keras")
    model = load_model(file)
    expected = (*manifest["image_shape"], len(manifest["class_names"]))
    if (*model.input_shape[1:], model.output_shape[-1]) != expected:
        raise StageError(f"{file} was trained on other data than {PREPARED}; run `dvc repro`")
    return predict(model, np.stack(inputs))


def as_row(found: Found, row: np.ndarray | None, class_names: list[str]) -> dict[str, Any]:
    """Return an image's row of the CSV file; without an answer, its probabilities are empty."""
    if row is None:
        return dict.fromkeys((f"p_{name}" for name in class_names), "") | dict(
            zip(COLUMNS, (found.name, "", "", "", found.said), strict=True)
        )
    best = int(row.argmax())
    values = (found.name, class_names[best], f"{row[best]:.6f}", found.said, "")
    shares = (f"{share:.6f}" for share in row)
    return dict(zip(COLUMNS, values, strict=True)) | {
        f"p_{name}": share for name, share in zip(class_names, shares, strict=True)
    }


def print_answer(found: Found, row: np.ndarray | None, class_names: list[str]) -> None:
    """Print what the model says about an image, or why it was not asked."""
    if row is None:
        print(f"{found.name}: not classified: {found.said}")
        return
    print(f"{found.name}: {found.said}")
    for label in np.argsort(-row, kind="stable")[:SHOWN]:
        print(f"  {class_names[label]:12} {row[label]:7.2%}")


if __name__ == "__main__":
    run(main)
