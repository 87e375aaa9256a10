"""Find the strokes of a handwritten digit in a photo or drawing, and place them as MNIST does."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from stages.common.cli import StageError
from stages.datasets.digits import MNIST_BOX, MNIST_SIDE, as_mnist

INVERTED = "inverted to the tones of the training data"
LOOKS_BLANK = "the picture looks blank: no stroke stands out from the background"
LARGEST = 800  # pixels per side that this needs at most; larger pictures are shrunk first
WIDEST = 0.4  # a stroke is narrower than this share of the picture; wider areas are background
SMALL = 300  # pixels per side; larger pictures are blurred by one pixel against a camera's noise
DARKEST = 64  # darker backgrounds are treated like this one: there, noise would look like strokes
BLANK = 0.12  # strokes that differ less from the background, as a share of it, are noise
FAINT, SURE = 0.35, 0.6  # strokes have this share of the strongest ink, and touch a surer place
COVERED = 0.75  # contrast to the other sides at which a stroke must cover a whole side
SPECK = 0.02  # of the area of all strokes
TALL = 0.5  # each of several digits has at least this share of the largest one's height
APART = 0.15  # digits above each other are further apart than this share of it,
HIGH = 2  # and together at least so many times as high as wide; a broken 0 or 8 is not
WIDE = 1.8  # no digit is wider than this, as a share of its height
PAPER = 0.2  # paper in a frame or on a desk covers this share of the picture,
RECTANGLE = 0.87  # and this share of the smallest rectangle around it (an ellipse: 0.79);
INKED = (0.003, 0.4)  # strokes cover such shares of it;
EDGE, STEP = 2, 0.4  # and the logarithm of the brightness changes so much within so many pixels
FRAME_NOISE = 8  # grey levels that hardly differ if the picture is dark
LINE = 0.8  # a printed line covers this share of the paper's width or height,
THIN = 0.04  # and is thinner than this share of the height or width
SLOPES = np.linspace(-0.08, 0.08, 33)  # of printed lines
PEN = 2.5 / MNIST_BOX  # usual width of a stroke, as a share of the larger side of the digit


def in_format(x: np.ndarray) -> np.ndarray:
    """Return which images have MNIST's format: a box of 20 × 20 pixels, centred by mass, on black.

    `x` is uint8 (n, height, width, channels); the result is bool (n,).
    """
    if x.shape[1:] != (MNIST_SIDE, MNIST_SIDE, 1):
        return np.zeros(len(x), bool)
    ink = x[..., 0].astype(np.float64)
    total = ink.sum(axis=(1, 2))
    good = total > 0
    for axis in (1, 2):
        profile = ink.max(axis=axis) > 0
        first, last = profile.argmax(axis=1), MNIST_SIDE - 1 - profile[:, ::-1].argmax(axis=1)
        mass = (ink.sum(axis=axis) * np.arange(MNIST_SIDE)).sum(axis=1) / np.maximum(total, 1)
        good &= (last - first < MNIST_BOX) & (np.abs(mass - (MNIST_SIDE - 1) / 2) <= 1)
    return good


def read_digit(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Return the digit in a picture as an image in MNIST's format.

    Parameters
    ----------
    picture
        RGBA, any size. On a transparent background, the colour of the strokes does not matter.

    Returns
    -------
    numpy.ndarray
        uint8 (28, 28, 1).
    list of str
        The preprocessing steps, in words.

    Raises
    ------
    StageError
        The picture is blank, or shows more than one digit.
    """
    ink, steps = find_ink(picture.reduce(max(1, -(-max(picture.size) // LARGEST))))
    strongest = np.sort(blurred(ink), axis=None)[-max(4, ink.size // 5000) :].mean()
    if strongest < BLANK:
        raise StageError(LOOKS_BLANK)
    ink = np.clip(ink / strongest, 0, 1)
    lines = printed_lines(ink > FAINT)
    if lines.any():
        ink = without_lines(ink, lines)
        steps.append("printed lines removed")
    marked, _ = ndimage.label(ink > FAINT, np.ones((3, 3)))
    sure = np.unique(marked[ink > SURE])
    mask, removed = main_strokes(np.where(np.isin(marked, sure), marked, 0))
    if not mask.any():  # only printed lines and specks
        raise StageError(LOOKS_BLANK)
    if removed:
        steps.append("specks removed")
    check_single(mask)
    ink = np.where(ndimage.binary_dilation(mask, np.ones((3, 3))), ink, 0)
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    steps.append("cropped, scaled and centred like the digits of MNIST")
    return as_mnist(squared(thickened(ink[box], mask[box])))[..., None], steps


# --- strokes and background ---------------------------------------------------------------


def find_ink(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Return how much each pixel of an RGBA picture differs from the background: 0 … 1.

    The background is the picture without everything that is narrower than `WIDEST` (Serra, 1982:
    grey-scale closing). So it follows uneven light and keeps wide frames.
    """
    colours, opacity = np.asarray(picture)[..., :3].astype(np.float32), np.asarray(picture)[..., 3]
    solid = opacity > 127
    if np.median(border(opacity)) <= 127 and solid.any() and is_drawing(colours, solid):
        return opacity / np.float32(255), ["strokes on a transparent background"]
    weight = opacity[..., None] / np.float32(255)
    colours = colours * weight + 255 * (1 - weight)
    colours, steps = paper_only(colours)
    if (colours == colours[..., :1]).all():
        colours = colours[..., :1]
    wide = round(WIDEST * max(colours.shape))
    inks, dark = [], 0.0
    for plane in np.moveaxis(colours, 2, 0):
        papers = [(each, background(blurred(each), wide)) for each in (plane, 255 - plane)]
        # Strokes that are mistaken for the background make it rougher.
        rough = [sum(np.abs(np.diff(b, axis=axis)).sum() for axis in (0, 1)) for _, b in papers]
        tones, paper = papers[int(rough[1] < rough[0])]
        inks.append((paper - tones) / np.maximum(paper, DARKEST))
        dark += inks[-1].sum() * (1 if rough[0] <= rough[1] else -1)
    if dark > 0:
        steps.append(INVERTED)
    return np.max(inks, axis=0), steps


def blurred(plane: np.ndarray) -> np.ndarray:
    """Return a plane (height, width) without most of a camera's noise."""
    return ndimage.gaussian_filter(plane, min(1.0, max(plane.shape) / SMALL))


def is_drawing(colours: np.ndarray, solid: np.ndarray) -> bool:
    """Return whether the opaque pixels are pen strokes only, without paper around them."""
    box = ndimage.find_objects(solid.astype(np.int8))[0]
    low, high = np.percentile(colours[solid].mean(axis=1), [5, 95])
    return bool(solid[box].mean() < 0.6 or high - low < DARKEST)


def paper_only(colours: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return a picture (height, width, 3) without a frame or desk around the paper.

    The paper is a large rectangle, in any direction, with strokes in it and a sharp edge. Corners
    that it leaves take the colour of its nearest pixel.
    """
    tone = np.log(colours.mean(axis=2) + FRAME_NOISE)  # so that shadows on the paper count less
    if np.ptp(tone) < STEP:
        return colours, []
    bright = tone > otsu(tone)
    for area in (bright, ~bright):
        marked, _ = ndimage.label(area)
        sizes = np.bincount(marked.ravel())
        sizes[0] = 0
        part = marked == sizes.argmax()
        sheet = ndimage.binary_fill_holes(part)
        share = (sheet & ~part).sum() / sheet.sum()
        if border(sheet).mean() > 0.5 or sheet.mean() < PAPER or not INKED[0] < share < INKED[1]:
            continue
        inner = ndimage.binary_erosion(sheet, iterations=EDGE)
        outer = ndimage.binary_dilation(sheet, iterations=EDGE)
        edge = ndimage.binary_erosion(inner) ^ inner, ndimage.binary_dilation(outer) ^ outer
        if not all(side.any() for side in edge) or rectangularity(sheet) < RECTANGLE:
            continue
        if abs(np.median(tone[edge[0]]) - np.median(tone[edge[1]])) < STEP:
            continue
        rows, columns = ndimage.find_objects(inner.astype(np.int8))[0]
        cut = colours[rows, columns]
        nearest = ndimage.distance_transform_edt(
            ~inner[rows, columns], return_distances=False, return_indices=True
        )
        return cut[tuple(nearest)], ["cut out of its frame"]
    return colours, []


def otsu(values: np.ndarray) -> float:
    """Return the threshold that separates two groups of values best (Otsu, 1979)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[np.nanargmax(between)])


def rectangularity(area: np.ndarray) -> float:
    """Return which share of the smallest rectangle around it an area covers, up to 1."""
    outline = np.argwhere(area & ~ndimage.binary_erosion(area))
    angles = np.deg2rad(np.arange(0, 90, 3))
    turned = outline @ np.stack([np.cos(angles), np.sin(angles)])
    across = outline @ np.stack([-np.sin(angles), np.cos(angles)])
    rectangles = (np.ptp(turned, axis=0) + 1) * (np.ptp(across, axis=0) + 1)
    return area.sum() / float(rectangles.min())


def border(plane: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of a plane (height, width)."""
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def background(plane: np.ndarray, wide: int) -> np.ndarray:
    """Return a plane (height, width) without dark areas that are narrower than `wide` pixels.

    Outside the picture, the background goes on as it is along each side. A side that a stroke
    covers takes the level of the whole border.
    """
    usual = np.median(border(plane))
    padded = np.pad(plane, wide, constant_values=usual)
    inside = slice(wide, -wide)
    for axis, along in ((0, inside), (1, slice(None))):  # the sides take the corners with them
        strips = np.moveaxis(padded, axis, 0)
        deep = min(wide // 2, plane.shape[axis] - 1)
        for outer, edge, inner in (
            (slice(None, wide), wide, wide + deep),
            (slice(-wide, None), -wide - 1, -wide - 1 - deep),
        ):
            contrast, beyond = (abs(np.median(strips[at, inside]) - usual) for at in (edge, inner))
            covered = contrast > COVERED * max(usual, 255 - usual) and beyond < contrast / 2
            if not covered:
                line = strips[edge, along]
                size = max(1, len(line) // 2)
                strips[outer, along] = ndimage.median_filter(line, size, mode="nearest")
    return ndimage.grey_closing(padded, (wide, wide), mode="nearest")[inside, inside]


# --- printed lines ------------------------------------------------------------------------


def printed_lines(mask: np.ndarray) -> np.ndarray:
    """Return which pixels of a mask (height, width) belong to thin lines across the picture."""
    return across(mask) | across(mask.T).T


def across(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of nearly horizontal lines. A single one may be the bar of a 5 or a 7."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    x = np.arange(width)
    thick = ndimage.binary_opening(mask, np.ones((max(4, round(THIN * height)), 1)))
    mask = ndimage.binary_dilation(mask & ~thick, np.ones((3, 1)))
    for slope in SLOPES:
        y = np.arange(height)[:, None] + np.rint(slope * (x - width / 2)).astype(int)
        inside = (y >= 0) & (y < height)
        y = np.clip(y, 0, height - 1)
        free = (inside & ~thick[y, x]).sum(axis=1)
        inked = (inside & mask[y, x] & ~thick[y, x]).sum(axis=1)
        rows = (inked > LINE * free) & (free > LINE / 2 * width)
        found[y[rows], np.broadcast_to(x, y[rows].shape)] = True
    return found if ndimage.label(found)[1] > 1 else np.zeros_like(found)


def without_lines(ink: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return the ink without lines, and close the gaps that they leave in strokes."""
    near = ndimage.binary_dilation(lines, np.ones((3, 3)))
    left = np.where(near, 0, ink)
    thick = 2 * round(float(ndimage.distance_transform_edt(near).max())) + 1
    return np.where(near, ndimage.grey_closing(left, (thick, thick)), left)


# --- the digit ----------------------------------------------------------------------------


def main_strokes(marked: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the mask of the numbered areas that belong to digits, and whether others were left.

    Specks do not, nor do areas that touch the border if there are others.
    """
    areas = np.bincount(marked.ravel())
    areas[0] = 0
    outer = np.zeros(len(areas), bool)
    outer[np.unique(border(marked))] = True
    inner = np.where(outer, 0, areas)
    kept = inner if inner.sum() > 2 * SPECK * areas.sum() else areas
    chosen = kept > SPECK * kept.sum()
    return chosen[marked], bool((areas[~chosen] > 0).any())


def check_single(mask: np.ndarray) -> None:
    """Raise StageError if the strokes are those of several digits."""
    marked, _ = ndimage.label(mask, np.ones((3, 3)))
    boxes = ndimage.find_objects(marked)
    tallest = max(rows.stop - rows.start for rows, _ in boxes)
    tall = [box for box in boxes if box[0].stop - box[0].start >= TALL * tallest]
    beside = groups([columns for _, columns in tall], gap=0)
    above = groups([rows for rows, _ in tall], gap=APART * tallest)
    rows, columns = ndimage.find_objects(mask.astype(np.int8))[0]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    several = ""
    if beside > 1:
        several = f"{beside} digits next to each other"
    elif above > 1 and height >= HIGH * width:
        several = f"{above} digits above each other"
    elif width > WIDE * height:
        several = "more than one digit"
    if several:
        raise StageError(f"the picture shows {several}; cut it into one picture per digit")


def groups(spans: list[slice], gap: float) -> int:
    """Return the number of groups of spans with more than `gap` pixels between them."""
    count, end = 0, -np.inf
    for span in sorted(spans, key=lambda span: span.start):
        count += span.start > end + gap
        end = max(end, span.stop)
    return count


def thickened(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the ink with strokes as wide as those of MNIST, if they are thinner."""
    width = 4 * ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean()
    missing = round((PEN * max(mask.shape) - width) / 2)
    if missing < 1:
        return ink
    y, x = np.ogrid[-missing : missing + 1, -missing : missing + 1]
    return ndimage.grey_dilation(np.pad(ink, missing), footprint=x**2 + y**2 <= missing**2)


def squared(ink: np.ndarray) -> np.ndarray:
    """Return ink 0 … 1 in the middle of a square with values 0 … 255, of at most MNIST's box."""
    side = max(ink.shape)
    top, left = ((side - length) // 2 for length in ink.shape)
    square = np.zeros((side, side), np.float32)
    square[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    if side > MNIST_BOX:  # average pixels: the interpolation in `as_mnist` would skip some
        smaller = Image.fromarray(square).resize((MNIST_BOX, MNIST_BOX), Image.Resampling.BOX)
        square = np.asarray(smaller)
    return square.astype(np.float64) * (255 / square.max())  # averaging makes thin lines pale
