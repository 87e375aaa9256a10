"""The architectures: layers, shapes and exact parameter counts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stages.files import StageError
from stages.models import build

SHAPE = (28, 28, 1)
PUBLISHED = {  # the architectures' own sizes, apart from what params.yaml holds
    "cnn.filters": [32, 64],
    "cnn.kernel_size": 3,
    "cnn.padding": "valid",
    "cnn.batch_norm": False,
    "cnn.dense": 128,
    "lstm.units": [128],
    "lstm.bidirectional": False,
    "lstm.dense": 64,
    "hybrid.filters": [32, 64],
    "hybrid.kernel_size": 3,
    "hybrid.padding": "same",
    "hybrid.batch_norm": False,
    "hybrid.units": [128],
    "hybrid.bidirectional": False,
    "hybrid.dense": 64,
}


@pytest.fixture
def make_model(make_params):
    """Return a function that builds a model of the published size, with changes."""

    def make(name: str, changes: dict | None = None, shape=SHAPE, classes: int = 10):
        params = make_params(PUBLISHED | (changes or {}))
        return build(name, shape, classes, getattr(params, name))

    return make


def convolution(side: int, channels: int, filters: int) -> int:
    return side * side * channels * filters + filters


def lstm(inputs: int, units: int) -> int:
    return 4 * units * (inputs + units + 1)


def dense(inputs: int, units: int) -> int:
    return (inputs + 1) * units


CONVOLUTIONS = convolution(3, 1, 32) + convolution(3, 32, 64)
HEAD = dense(128, 64) + dense(64, 10)
COUNTS = [
    ("cnn", {}, 225_034),
    ("cnn", {"cnn.batch_norm": True}, 225_034 + 4 * (32 + 64)),
    ("cnn", {"cnn.padding": "same"}, CONVOLUTIONS + dense(7 * 7 * 64, 128) + dense(128, 10)),
    ("cnn", {"cnn.filters": [8]}, convolution(3, 1, 8) + dense(13 * 13 * 8, 128) + dense(128, 10)),
    ("lstm", {}, 89_290),
    ("lstm", {"lstm.units": [32, 16]}, lstm(28, 32) + lstm(32, 16) + dense(16, 64) + dense(64, 10)),
    ("lstm", {"lstm.bidirectional": True}, 2 * lstm(28, 128) + dense(256, 64) + dense(64, 10)),
    ("hybrid", {}, CONVOLUTIONS + lstm(7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.padding": "valid"}, CONVOLUTIONS + lstm(5 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.batch_norm": True}, CONVOLUTIONS + 384 + lstm(7 * 64, 128) + HEAD),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "count"), COUNTS)
def test_parameter_counts(make_model, name, changes, count):
    assert make_model(name, changes).count_params() == count


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 36, 3), (33, 17, 1)])
@pytest.mark.parametrize("name", ["cnn", "lstm", "hybrid"])
def test_pixels_of_any_size_become_probabilities(make_model, name, shape):
    keras.utils.set_random_seed(0)
    model = make_model(name, shape=shape, classes=4)
    x = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    y = model.predict(x, verbose=0)
    assert y.shape == (5, 4)
    assert y.dtype == np.float32
    assert y.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_the_models_see_pixels_from_0_to_1(make_model):
    for name in ("cnn", "lstm", "hybrid"):
        first = make_model(name).layers[0]
        seen = keras.ops.convert_to_numpy(first(np.array([[0.0, 51.0, 255.0]])))
        assert seen == pytest.approx(np.array([[0, 0.2, 1]]))


def test_the_recurrent_models_read_rows_as_time_steps(make_model):
    def sequence(name: str) -> tuple:
        return next(
            layer.input.shape
            for layer in make_model(name).layers
            if isinstance(layer, keras.layers.LSTM)
        )

    assert sequence("lstm") == (None, 28, 28)
    assert sequence("hybrid") == (None, 7, 7 * 64)


@pytest.mark.parametrize(("padding", "room"), [("valid", 3), ("same", 4)])
@pytest.mark.parametrize("name", ["cnn", "hybrid"])
def test_more_blocks_than_the_image_has_room_for_are_refused(make_model, name, padding, room):
    make_model(name, {f"{name}.padding": padding, f"{name}.filters": [4] * room})
    said = rf"{name}\.filters has {room + 1} .* a 28×28 image has room for {room} "
    with pytest.raises(StageError, match=said):
        make_model(name, {f"{name}.padding": padding, f"{name}.filters": [4] * (room + 1)})
