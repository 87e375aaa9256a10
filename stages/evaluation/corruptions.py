"""Accuracy on images that are shifted, rotated, blurred and so on, at five strengths.

Every run draws the same images and the same random numbers, so that runs can be compared. At each
strength, an image is moved in the same direction, so that only the strength differs. All frames of
a sequence get the same transform. Never used for tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy import ndimage

SEED = 1
IMAGES = 2000
BLOCK = 250  # images per call and thread
STRENGTHS = {
    "shift": (0.04, 0.08, 0.12, 0.16, 0.2),  # share of the side, in a random direction
    "rotation": (10, 20, 30, 40, 50),  # degrees, in a random direction
    "scale": (1.1, 1.2, 1.35, 1.5, 1.7),  # half of the images larger, the others smaller
    "noise": (0.08, 0.14, 0.2, 0.26, 0.32),  # standard deviation, share of white
    "blur": (0.015, 0.022, 0.03, 0.04, 0.05),  # standard deviation, share of the side
    "occlusion": (0.15, 0.25, 0.35, 0.45, 0.55),  # side of a square, share of the image's side
    "inversion": (0.1, 0.2, 0.4, 0.7, 1.0),  # share of the negative in a mixture with the image
    "contrast": (0.9, 0.8, 0.7, 0.6, 0.5),  # share of the contrast that is left
}


def sample(n: int) -> np.ndarray:
    """Return the sorted indices of at most `IMAGES` of `n` test images, the same in every run."""
    return np.sort(np.random.default_rng(SEED).permutation(n)[:IMAGES])


def corrupted(x: np.ndarray, kind: str, amount: float) -> np.ndarray:
    """Return images with one corruption.

    Parameters
    ----------
    x
        uint8 (n, …, height, width, channels).
    kind
        A key of `STRENGTHS`.
    amount
        In the unit of this corruption there.

    Returns
    -------
    numpy.ndarray
        uint8, of the same shape. Places that a move uncovers get the value of the nearest edge.
    """
    random = np.random.default_rng([SEED, list(STRENGTHS).index(kind)])
    draws = random.uniform(-1, 1, (len(x), 2))
    starts = range(0, len(x), BLOCK)
    seeds = random.integers(2**32, size=len(starts))

    def part(start: int, seed: int) -> np.ndarray:
        block = slice(start, start + BLOCK)
        changed = KINDS[kind](x[block], amount, draws[block], np.random.default_rng(seed))
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)

    with ThreadPoolExecutor() as pool:
        return np.concatenate(list(pool.map(part, starts, seeds)))


def moved(x: np.ndarray, maps: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return images (n, …, height, width, channels) after one affine map around the centre each.

    Output pixel p is input pixel ``maps[i] @ (p - centre) + centre + shifts[i]``; `maps` are
    (n, 2, 2) and `shifts` (n, 2), in pixels.
    """
    planes = np.moveaxis(x, -1, 1).reshape(len(x), -1, *x.shape[-3:-1])
    result = np.empty_like(planes)
    centre = (np.array(planes.shape[2:]) - 1) / 2
    offsets = centre - maps @ centre + shifts
    for image, output, matrix, offset in zip(planes, result, maps, offsets, strict=True):
        for plane, target in zip(image, output, strict=True):
            ndimage.affine_transform(plane, matrix, offset, output=target, order=1, mode="nearest")
    channels_first = (len(x), x.shape[-1], *x.shape[1:-1])
    return np.moveaxis(result.reshape(channels_first), 1, -1)


def shift(x: np.ndarray, share: float, draws: np.ndarray, _: Any) -> np.ndarray:
    """Move the image in a random direction, by a share of its sides."""
    angle = math.pi * draws[:, 0]
    steps = share * np.array(x.shape[-3:-1]) * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return moved(x, np.tile(np.eye(2), (len(x), 1, 1)), steps)


def rotation(x: np.ndarray, degrees: float, draws: np.ndarray, _: Any) -> np.ndarray:
    """Turn the image by some degrees, to a random side."""
    angle = np.deg2rad(degrees) * np.sign(draws[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    maps = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    return moved(x, maps, np.zeros((len(x), 2)))


def scale(x: np.ndarray, factor: float, draws: np.ndarray, _: Any) -> np.ndarray:
    """Enlarge or shrink the image by a factor."""
    factors = np.where(draws[:, 0] > 0, factor, 1 / factor)
    return moved(x, factors[:, None, None] * np.eye(2), np.zeros((len(x), 2)))


def noise(x: np.ndarray, share: float, _: Any, random: np.random.Generator) -> np.ndarray:
    """Add normal noise; `share` is its standard deviation, 1 for black to white."""
    return x + np.float32(255 * share) * random.standard_normal(x.shape, np.float32)


def blur(x: np.ndarray, share: float, *_: Any) -> np.ndarray:
    """Blur the image; `share` is the standard deviation, as a share of the image's sides."""
    height, width = x.shape[-3:-1]
    sigmas = (*[0] * (x.ndim - 3), share * height, share * width, 0)
    return ndimage.gaussian_filter(x, sigmas, mode="nearest")


def occlusion(x: np.ndarray, share: float, draws: np.ndarray, _: Any) -> np.ndarray:
    """Hide a square at a random place behind each image's median value per channel."""
    covered = x.copy()
    sides = np.maximum(1, np.rint(share * np.array(x.shape[-3:-1]))).astype(int)
    room = np.array(x.shape[-3:-1]) - sides
    corners = np.rint((draws + 1) / 2 * room).astype(int)
    for image, (top, left) in zip(covered, corners, strict=True):
        level = np.median(image.reshape(-1, x.shape[-1]), axis=0)
        image[..., top : top + sides[0], left : left + sides[1], :] = level
    return covered


def inversion(x: np.ndarray, share: float, *_: Any) -> np.ndarray:
    """Mix the image with its negative; `share` is the weight of the negative."""
    return x + np.float32(share) * (np.float32(255) - 2 * x.astype(np.float32))


def contrast(x: np.ndarray, left: float, *_: Any) -> np.ndarray:
    """Move all pixels towards the image's mean, so that a share of the contrast is left."""
    means = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True, dtype=np.float32)
    return means + np.float32(left) * (x - means)


KINDS: Mapping[str, Callable[..., np.ndarray]] = {
    each.__name__: each
    for each in (shift, rotation, scale, noise, blur, occlusion, inversion, contrast)
}


def accuracies(
    x: np.ndarray, y: np.ndarray, predict: Callable[[np.ndarray], Mapping[str, np.ndarray]]
) -> Iterator[dict[str, Any]]:
    """Yield one row per model, corruption and strength, 0 (the images as they are) to 5.

    Parameters
    ----------
    x, y
        All test images, uint8 (n, …, height, width, channels), and labels (n,).
    predict
        Returns each model's probabilities (n, classes) for images.

    Yields
    ------
    dict
        ``model``, ``corruption``, ``strength``, and ``accuracy``, a fraction.
    """
    chosen = sample(len(y))
    x, y = np.asarray(x[chosen]), y[chosen]
    clean = predict(x)
    for kind, amounts in STRENGTHS.items():
        for strength, amount in enumerate((None, *amounts)):
            found = clean if amount is None else predict(corrupted(x, kind, amount))
            for model, probabilities in found.items():
                right = probabilities.argmax(axis=1) == y
                yield {
                    "model": model,
                    "corruption": kind,
                    "strength": strength,
                    "accuracy": float(right.mean()),
                }
