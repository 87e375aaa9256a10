"""Draw the random affine maps that augment training images."""

from __future__ import annotations

import numpy as np

from stages.common.params import Model

SAMPLE = 1000  # images whose borders are looked at


def border_level(x: np.ndarray) -> tuple[int, ...]:
    """Return the usual value at the border of images, the median of each channel.

    `x` is uint8 (n, …, height, width, channels). Places that augmentation uncovers get this value:
    on a light background, black edges would tell nothing about the class.
    """
    x = x[:SAMPLE]
    rows, columns = x[..., [0, -1], :, :], x[..., :, [0, -1], :]
    edges = [each.reshape(-1, x.shape[-1]) for each in (rows, columns)]
    return tuple(int(level) for level in np.median(np.concatenate(edges), axis=0))


def augments(section: Model) -> bool:
    """Return whether a model's section asks for any augmentation."""
    return bool(section.shift or section.rotation or section.zoom or section.flip)


def transforms(
    random: np.random.Generator, n: int, size: tuple[int, int], section: Model
) -> np.ndarray:
    """Draw `n` random affine maps around the centre of images of `size` (height, width).

    Returns
    -------
    numpy.ndarray
        float32 (n, 8), rows ``[a0, a1, a2, b0, b1, b2, 0, 0]`` for
        `keras.ops.image.affine_transform`: output pixel (x, y) is copied from input pixel
        (a0 x + a1 y + a2, b0 x + b1 y + b2).
    """
    angle = np.deg2rad(random.uniform(-1, 1, n) * section.rotation)
    scale = 1 / (1 + random.uniform(-1, 1, n) * section.zoom)
    mirror = np.where(section.flip & (random.random(n) < 0.5), -1.0, 1.0)
    shift = random.integers(-section.shift, section.shift, (2, n), endpoint=True)
    a0, a1 = mirror * scale * np.cos(angle), -mirror * scale * np.sin(angle)
    b0, b1 = scale * np.sin(angle), scale * np.cos(angle)
    centre_y, centre_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    a2 = centre_x - a0 * (centre_x + shift[0]) - a1 * (centre_y + shift[1])
    b2 = centre_y - b0 * (centre_x + shift[0]) - b1 * (centre_y + shift[1])
    zero = np.zeros(n)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)
