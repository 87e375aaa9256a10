"""A million images or 500 epochs: memory stays small, and training keeps its speed."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow
IMAGES, SIDE = 1_000_000, 28
MNIST_SIZE = 54_000  # training images
SECONDS, BEYOND_ARRAYS = 60, 2 * 2**30
PREPARE = """
import resource, time
started = time.perf_counter()
from stages import prepare
prepare.main()
print("seconds", time.perf_counter() - started)
print("peak", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """Return the path of a file with a million random images of ten classes."""
    path = tmp_path_factory.mktemp("million") / "million.npz"
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (IMAGES, SIDE, SIDE), dtype=np.uint8)
    np.savez(path, x=x, y=random.integers(0, 10, IMAGES))
    return path


def test_a_million_images_are_prepared_in_a_minute(project, million):
    project.set({"dataset": str(million)})
    printed = project.run(sys.executable, "-c", PREPARE).stdout
    figures = {line.split()[0]: float(line.split()[1]) for line in printed.splitlines()[-2:]}
    assert figures["seconds"] <= SECONDS
    assert figures["peak"] - IMAGES * SIDE**2 <= BEYOND_ARRAYS


def test_training_on_a_million_images_is_as_fast_per_image(project, million):
    """One epoch each; the sides alternate, and the best of two rounds counts."""
    speeds: dict[int, list[float]] = {0: [], MNIST_SIZE: []}
    for _ in range(2):
        for images, found in speeds.items():
            project.set({
                "dataset": str(million), "epochs": 2, "prepare.train_images": images,
                "train.batch_size": 256, "lstm.units": [128], "lstm.dense": 64, "lstm.shift": 1,
            })  # fmt: skip
            project.stage("prepare")
            project.stage("train", "lstm")
            timing = json.loads(project.read("data/timing/lstm.json"))
            found.append(timing["examples_per_second"])
    assert max(speeds[0]) >= 0.9 * max(speeds[MNIST_SIZE]), speeds


EPOCHS = """
import psutil
from pathlib import Path
from stages.common.arrays import read_manifest, read_split
from stages.common.params import load_params
from stages.training.session import train_model

def log(line):
    print("resident", psutil.Process().memory_info().rss)

data = [read_split(part) for part in ("train", "val")]
train_model("cnn", load_params(), *data, len(read_manifest()["class_names"]), log=log)
"""


def test_memory_does_not_grow_with_the_epochs(project):
    project.set({"dataset": "digits", "epochs": 500})
    project.stage("prepare")
    lines = project.run(sys.executable, "-c", EPOCHS).stdout.splitlines()
    resident = [int(line.split()[1]) for line in lines if line.startswith("resident")]
    assert len(resident) >= 500
    assert resident[-1] <= 1.05 * resident[49]
