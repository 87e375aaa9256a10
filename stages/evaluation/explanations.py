"""What a model looks at: its belief after each time step, or which parts of an image matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

EXAMPLES = 4  # images per model
GRID = 14  # positions of the occluding square per axis, at most
SQUARE = 0.25  # its side, share of the image's side
DIGITS = 4  # decimals


def explain(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    probabilities: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
    """Explain a model's predictions of a few test images.

    A model that starts with a recurrent layer shows its belief after each time step. Any other
    model shows which places it needs for its most confident mistakes.

    Parameters
    ----------
    x, y, probabilities
        Test images, uint8 (n, …, height, width, channels), labels (n,), and what the model says
        about them (n, classes).
    predict
        Returns the model's probabilities for images.

    Returns
    -------
    dict
        ``kind``, ``images`` (indices), and ``values``: of the kind "belief" class probabilities per
        image and time step, of the kind "occlusion" per image a grid with the loss of probability
        of the predicted class when the image is hidden around this place.
    """
    wrong = confident_mistakes(y, probabilities)[:EXAMPLES]
    if reads_steps(model):
        chosen = with_right_ones(wrong[: EXAMPLES // 2], y, probabilities)
        values = beliefs(model, x[chosen])
        kind = "belief"
    else:
        chosen, kind = wrong, "occlusion"
        guesses = probabilities[chosen].argmax(axis=1)
        values = np.array([
            occlusion_map(x[i], int(guess), predict)
            for i, guess in zip(chosen, guesses, strict=True)
        ])  # fmt: skip
    return {"kind": kind, "images": list(chosen), "values": values.round(DIGITS).tolist()}


def confident_mistakes(y: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the indices of the misclassified images, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order].tolist()


def with_right_ones(wrong: list[int], y: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return `EXAMPLES` indices: `wrong`, and the first right images of other classes."""
    chosen, seen = list(wrong), {int(y[i]) for i in wrong}
    for i in np.flatnonzero(probabilities.argmax(axis=1) == y).tolist():
        if len(chosen) < EXAMPLES and int(y[i]) not in seen:
            chosen.append(i)
            seen.add(int(y[i]))
    return chosen


def reads_steps(model: keras.Model) -> bool:
    """Return whether the first layer with weights is recurrent, in a model without branches."""
    import keras

    recurrent = keras.layers.RNN | keras.layers.Bidirectional
    first = next(layer for layer in model.layers if layer.weights)
    return isinstance(model, keras.Sequential) and isinstance(first, recurrent)


def beliefs(model: keras.Sequential, x: np.ndarray) -> np.ndarray:
    """Return class probabilities (n, steps, classes) after each time step of images `x`.

    After step t, the layers see the first t steps only.
    """
    start = next(i for i, layer in enumerate(model.layers) if layer.weights)
    steps = chained(model.layers[:start], x)
    return np.stack(
        [
            np.asarray(chained(model.layers[start:], steps[:, :t]), np.float32)
            for t in range(1, steps.shape[1] + 1)
        ],
        axis=1,
    )


def chained(layers: list[keras.Layer], x: Any) -> Any:
    """Return the output of some layers, one after the other, without dropout."""
    for layer in layers:
        x = layer(x, training=False)
    return x


def occlusion_map(
    image: np.ndarray, label: int, predict: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return how much probability of class `label` is lost when a square is hidden.

    Parameters
    ----------
    image
        uint8 (…, height, width, channels); a square of all frames of a sequence is hidden behind
        the image's median value per channel.

    Returns
    -------
    numpy.ndarray
        float (rows, columns); the squares' centres are spread evenly over the image.
    """
    height, width, channels = image.shape[-3:]
    level = np.median(image.reshape(-1, channels), axis=0)
    hidden = []
    spans = [
        [
            slice(max(0, round(centre - SQUARE * side / 2)), round(centre + SQUARE * side / 2) or 1)
            for centre in (np.arange(min(GRID, side)) + 0.5) * side / min(GRID, side)
        ]
        for side in (height, width)
    ]
    for rows in spans[0]:
        for columns in spans[1]:
            copy = image.copy()
            copy[..., rows, columns, :] = level
            hidden.append(copy)
    whole, *parts = predict(np.stack([image, *hidden]))[:, label]
    return (whole - np.array(parts)).reshape(len(spans[0]), len(spans[1]))
