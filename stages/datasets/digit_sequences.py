"""Generate sequences of digits whose class depends on the order of the frames, without a download.

Each sequence has `FRAMES` frames. Each frame shows a different digit at a random position, and one
of them is a 0. The class is the digit that follows the 0.
"""

from __future__ import annotations

import numpy as np

from stages.datasets.digits import load_digits
from stages.datasets.labelled_images import Dataset

FRAMES = 6
TRAIN_SEQUENCES = 10_000
TEST_SEQUENCES = 1_000
SEED = 0


def load_digit_sequences() -> Dataset:
    """Return the generated sequences. Training and test set show different images of digits.

    A reader who ignores the order of the frames gets at most 1 of 5 sequences right: for each set
    of digits, each of the five digits besides the 0 is the class equally often.
    """
    digits = load_digits()
    random = np.random.default_rng(SEED)
    train = digit_orders(random, TRAIN_SEQUENCES)
    test = digit_orders(random, TEST_SEQUENCES)
    return Dataset(
        x_train=draw(random, train, digits.x_train, digits.y_train),
        y_train=following_zero(train),
        x_test=draw(random, test, digits.x_test, digits.y_test),
        y_test=following_zero(test),
        class_names=digits.class_names[1:],
    )


def digit_orders(random: np.random.Generator, n: int) -> np.ndarray:
    """Return the digits of `n` sequences, (n, `FRAMES`), shuffled.

    Each set of digits makes one sequence for each digit that can follow the 0.
    """
    orders = []
    for _ in range(n // (FRAMES - 1)):
        others = random.permutation(np.arange(1, 10))[: FRAMES - 1]
        for following in others:
            rest = random.permutation(others[others != following])
            place = random.integers(0, FRAMES - 1)  # of the 0, which is never last
            orders.append(np.insert(rest, place, (0, following)))
    return random.permutation(np.array(orders))


def following_zero(orders: np.ndarray) -> np.ndarray:
    """Return the labels, int32 (n,): the digit after the 0, less 1, because labels start at 0."""
    places = orders.argmin(axis=1)
    return (orders[np.arange(len(orders)), places + 1] - 1).astype(np.int32)


def draw(
    random: np.random.Generator, orders: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Return frames, uint8 (n, `FRAMES`, height, width, 1), with a random image of each digit."""
    of_digit = [images[labels == digit, ..., 0] for digit in range(10)]
    frames = np.zeros((*orders.shape, *images.shape[1:]), np.uint8)
    for frame, digit in zip(frames.reshape(-1, *images.shape[1:3]), orders.flat, strict=True):
        image = of_digit[digit][random.integers(len(of_digit[digit]))]
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        stroke = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = (
            random.integers(side - size, endpoint=True)
            for side, size in zip(frame.shape, stroke.shape, strict=True)
        )
        frame[top : top + stroke.shape[0], left : left + stroke.shape[1]] = stroke
    return frames
