"""Load scikit-learn's handwritten digits in MNIST's format, without a download."""

from __future__ import annotations

import numpy as np

from stages.datasets.labelled_images import Dataset

TEST_IMAGES = 360  # of 1797: about a fifth
SPLIT_SEED = 0
MNIST_BOX = 20  # MNIST scales each digit into a box of 20 × 20 pixels ...
MNIST_SIDE = 28  # ... and centres it by mass in an image of 28 × 28


def load_digits() -> Dataset:
    """Return the UCI handwritten digits (Alpaydin & Kaynak, 1998) in MNIST's format."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    x = np.stack([as_mnist(image / 16 * 255) for image in bunch.images])[..., None]
    y = bunch.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(y)), test_size=TEST_IMAGES, stratify=y, random_state=SPLIT_SEED
    )
    train, test = np.sort(train), np.sort(test)
    return Dataset(x[train], y[train], x[test], y[test], tuple("0123456789"))


def as_mnist(image: np.ndarray) -> np.ndarray:
    """Scale a square image into MNIST's box and centre it by mass, as MNIST does.

    Parameters
    ----------
    image
        (side, side), bright strokes on a background of 0, at most 255.

    Returns
    -------
    numpy.ndarray
        uint8 (28, 28).
    """
    from scipy import ndimage

    box = ndimage.zoom(image, MNIST_BOX / len(image), order=1, grid_mode=True, mode="nearest")
    field = np.zeros((MNIST_SIDE, MNIST_SIDE))
    margin = (MNIST_SIDE - MNIST_BOX) // 2
    field[margin : margin + MNIST_BOX, margin : margin + MNIST_BOX] = box
    centre = (MNIST_SIDE - 1) / 2
    offset = [round(centre - mass) for mass in ndimage.center_of_mass(field)]
    return np.rint(
        np.clip(np.roll(field, np.clip(offset, -margin, margin), (0, 1)), 0, 255)
    ).astype(np.uint8)
