"""Synthetic pictures of handwritten digits as people send them, for `tests/test_predict.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

SIDE = 400  # pixels


def strokes(image: np.ndarray, side: int) -> np.ndarray:
    """Return a digit in MNIST's format as opacities 0 … 1 of (side, side), with sharp edges."""
    return np.clip((np.asarray(enlarged(image, side)) / 255 - 0.4) * 4, 0, 1)


def enlarged(image: np.ndarray, side: int = 310) -> Image.Image:
    return Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BICUBIC)


def drawn(paper: np.ndarray, alpha: np.ndarray, ink=(20, 20, 60), at=None) -> Image.Image:
    """Return an RGB picture: `paper`, float (height, width, 3), with strokes drawn on it."""
    page = paper.astype(float).copy()
    height, width = alpha.shape
    top, left = at or ((page.shape[0] - height) // 2, (page.shape[1] - width) // 2)
    part = page[top : top + height, left : left + width]
    part[:] = part * (1 - alpha[..., None]) + np.array(ink) * alpha[..., None]
    return Image.fromarray(np.clip(page, 0, 255).astype(np.uint8))


def paper(level: float = 245, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    return np.full((*size, 3), float(level))


def shadowed(picture: Image.Image, darkest: float = 0.35, angle: float = 0.7) -> Image.Image:
    """Return a photo of a picture in light that falls off to one side, with noise."""
    y, x = np.mgrid[: picture.height, : picture.width] / max(picture.size)
    along = np.cos(angle) * x + np.sin(angle) * y
    light = 1 - (1 - darkest) * (along / along.max())
    noise = np.random.default_rng(1).normal(0, 3, (picture.height, picture.width, 1))
    return Image.fromarray(
        np.clip(np.asarray(picture) * light[..., None] + noise, 0, 255).astype(np.uint8)
    )


def ruled(
    squares: bool, spacing: int = 28, colour=(150, 180, 220), slope: float = 0.01
) -> np.ndarray:
    """Return lined or squared paper."""
    page = Image.fromarray(paper(248).astype(np.uint8))
    pen = ImageDraw.Draw(page)
    for at in range(spacing // 2, SIDE + spacing, spacing):
        pen.line([(0, at), (SIDE, at - slope * SIDE)], fill=colour, width=2)
        if squares:
            pen.line([(at, 0), (at + slope * SIDE, SIDE)], fill=colour, width=2)
    return np.asarray(page).astype(float)


def on_desk(picture: Image.Image, angle: float = 8) -> Image.Image:
    """Return a sheet of paper, turned by some degrees, on a dark desk."""
    sheet = picture.convert("RGBA").rotate(angle, Image.Resampling.BICUBIC, expand=True)
    desk = Image.new("RGBA", (sheet.width + 80, sheet.height + 60), (70, 50, 40))
    desk.alpha_composite(sheet, (40, 30))
    return desk.convert("RGB")


def framed(picture: Image.Image, width: int) -> Image.Image:
    frame = Image.new("RGB", (picture.width + 2 * width, picture.height + 2 * width), (8, 8, 8))
    frame.paste(picture, (width, width))
    return frame


def transparent(alpha: np.ndarray, ink: tuple[int, int, int]) -> Image.Image:
    """Return strokes of one colour on a transparent background."""
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    rgba[..., :3][alpha > 0] = ink
    rgba[..., 3] = np.rint(alpha * 255)
    return Image.fromarray(rgba)


def tight(alpha: np.ndarray) -> np.ndarray:
    """Return strokes cropped so that they touch all four sides."""
    rows, columns = (np.flatnonzero((alpha > 0.5).any(axis=axis)) for axis in (1, 0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def on_tight_paper(alpha: np.ndarray) -> Image.Image:
    cut = tight(alpha)
    return Image.fromarray(np.rint(245 - 225 * cut).astype(np.uint8)).convert("RGB")


def touching_top(d: np.ndarray) -> Image.Image:
    cut = tight(strokes(d, 200))
    page = np.zeros((SIDE, SIDE))
    page[: cut.shape[0], 100 : 100 + cut.shape[1]] = cut
    return drawn(paper(), page)


def skeleton(d: np.ndarray, side: int) -> np.ndarray:
    """Return thin strokes: the middle of those of a digit."""
    alpha = strokes(d, side)
    depth = ndimage.distance_transform_edt(alpha > 0.5)
    return (depth > 0.6 * ndimage.maximum_filter(depth, side // 15)).astype(float)


CASES: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "dark on light": lambda d: drawn(paper(), strokes(d, 300)),
    "light on dark": lambda d: drawn(paper(20), strokes(d, 300), (240, 240, 240)),
    "shadow": lambda d: shadowed(drawn(paper(), strokes(d, 250))),
    "deep shadow": lambda d: shadowed(drawn(paper(), strokes(d, 250)), 0.2, 0),
    "yellow pen": lambda d: drawn(paper(), strokes(d, 250), (250, 240, 40)),
    "red on black": lambda d: drawn(paper(0), strokes(d, 250), (200, 0, 0)),
    "sticky note": lambda d: drawn(paper() * (1, 0.95, 0.3), strokes(d, 250), (30, 60, 200)),
    "transparent, black": lambda d: transparent(strokes(d, 300), (0, 0, 0)),
    "transparent, white": lambda d: transparent(strokes(d, 300), (255, 255, 255)),
    "transparent, green": lambda d: transparent(strokes(d, 300), (90, 220, 120)),
    "black frame": lambda d: framed(drawn(paper(), strokes(d, 300)), 40),
    "thin frame": lambda d: framed(drawn(paper(), strokes(d, 300)), 4),
    "wide frame": lambda d: framed(drawn(paper(), strokes(d, 300)), 150),
    "desk": lambda d: on_desk(shadowed(drawn(paper(), strokes(d, 250)), 0.6)),
    "lined": lambda d: drawn(ruled(False), strokes(d, 250)),
    "squared": lambda d: drawn(ruled(True), strokes(d, 250)),
    "squared, dark": lambda d: drawn(ruled(True, 50, (60, 70, 140)), strokes(d, 250)),
    "squared, shadow": lambda d: shadowed(drawn(ruled(True), strokes(d, 250))),
    "corner": lambda d: drawn(paper(), strokes(d, 120), at=(275, 10)),
    "tiny": lambda d: drawn(paper(size=(800, 1000)), strokes(d, 50), at=(100, 700)),
    "touching one side": touching_top,
    "touching all sides": lambda d: on_tight_paper(strokes(d, 300)),
    "thin pen": lambda d: drawn(paper(), skeleton(d, 300)),
}
