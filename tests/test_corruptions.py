"""Corrupted test images, and the accuracy on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from stages.evaluation.corruptions import STRENGTHS, accuracies, corrupted, sample
from stages.evaluation.scores import mean_corrupted


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth blobs, uint8 (300, 20, 16, 2), darker than white everywhere."""
    pixels = np.random.default_rng(0).uniform(0, 1, (300, 20, 16, 2))
    smooth = ndimage.gaussian_filter(pixels, (0, 1, 1, 0))
    return (200 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_stronger_corruption_changes_more_and_equally_in_every_run(images, kind):
    before = images.copy()
    changes = []
    for amount in STRENGTHS[kind]:
        made = corrupted(images, kind, amount)
        assert (made.dtype, made.shape) == (np.uint8, images.shape)
        assert np.array_equal(made, corrupted(images, kind, amount))
        changes.append(np.abs(made.astype(float) - images).mean())
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert np.array_equal(images, before)


def test_corruptions_do_what_they_are_called(images):
    assert np.array_equal(corrupted(images, "inversion", 1.0), 255 - images)
    left = corrupted(images, "contrast", 0.5).std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert left == pytest.approx(0.5, abs=0.05)
    hidden = corrupted(images, "occlusion", 0.5)
    assert np.all([(changed != image).any(-1).sum() <= 10 * 8
                   for changed, image in zip(hidden, images, strict=True)])  # fmt: skip
    one = np.zeros((200, 21, 21, 1), np.uint8)
    one[:, 10, 15] = 255  # five pixels to the right of the centre
    turned = corrupted(one, "rotation", 90)
    places = {tuple(int(i) for i in np.argwhere(image[..., 0])[0]) for image in turned}
    assert places == {(5, 10), (15, 10)}
    centres = [ndimage.center_of_mass(image[..., 0]) for image in corrupted(one, "shift", 0.2)]
    distances = np.hypot(*(np.array(centres) - (10, 15)).T)
    assert distances == pytest.approx(0.2 * 21, abs=0.1)
    square = np.zeros((50, 20, 20, 1), np.uint8)
    square[:, 6:14, 6:14] = 255
    wide = corrupted(square, "scale", 1.5)
    areas = sorted({round(float(image.sum() / 255)) for image in wide})
    assert areas[0] == pytest.approx(64 / 1.5**2, abs=3)
    assert areas[-1] == pytest.approx(64 * 1.5**2, abs=8)


@pytest.mark.parametrize("kind", sorted(set(STRENGTHS) - {"noise"}))
def test_all_frames_of_a_sequence_get_one_transform(images, kind):
    sequences = np.repeat(images[:, None], 3, axis=1)
    made = corrupted(sequences, kind, STRENGTHS[kind][2])
    assert np.array_equal(made, np.repeat(made[:, :1], 3, axis=1))
    assert not np.array_equal(made, sequences)


def test_each_accuracy_is_that_of_its_images():
    y = np.arange(3000) % 2
    x = np.repeat(200 * y[:, None], 16, axis=1).reshape(-1, 4, 4, 1).astype(np.uint8)
    seen = []

    def predict(pixels):
        seen.append(pixels)
        bright = (pixels.mean(axis=(1, 2, 3)) > 127).astype(int)
        return {"threshold": np.eye(2)[bright], "never": np.eye(2)[np.zeros(len(pixels), int)]}

    rows = list(accuracies(x, y, predict))
    assert len(seen) == 1 + 5 * len(STRENGTHS)
    assert all(len(pixels) == 2000 for pixels in seen)
    found = {(row["model"], row["corruption"], row["strength"]): row["accuracy"] for row in rows}
    assert len(found) == len(rows) == 2 * 6 * len(STRENGTHS)
    zeros = float((y[sample(3000)] == 0).mean())
    assert {value for (model, *_), value in found.items() if model == "never"} == {zeros}
    assert found["threshold", "inversion", 0] == found["threshold", "shift", 5] == 1
    assert found["threshold", "inversion", 5] == 0  # dark images become bright
    means = mean_corrupted(rows)
    assert means["never"]["robustness"] == pytest.approx(zeros)
    corrupt = [v for (model, _, strength), v in found.items() if model == "threshold" and strength]
    assert means["threshold"]["robustness"] == pytest.approx(np.mean(corrupt))


@pytest.mark.extra
def test_a_parameter_switches_them_off(clone):
    tested = json.loads(clone.read("metrics/test.json"))
    assert all(0 < row["test"]["robustness"] < 1 for row in tested.values())
    assert clone.read("plots/robustness.csv").count("\n") == 1 + 4 * 6 * len(STRENGTHS)
    clone.set({"evaluate.corruptions": False})
    clone.stage("evaluate")
    assert clone.read("plots/robustness.csv") == "model,corruption,strength,accuracy\n"
    without = json.loads(clone.read("metrics/test.json"))
    for name, row in tested.items():
        del row["test"]["robustness"]
        assert without[name] == row
