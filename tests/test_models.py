"""The architectures: layers, shapes and exact parameter counts; and how to add a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from conftest import ROOT

from stages.common.cli import StageError
from stages.common.params import load_params
from stages.models import build
from stages.models.shared import blocks, safety

pytestmark = pytest.mark.usefixtures("backend")
MODELS = ("cnn", "lstm", "hybrid")
SHAPE = (28, 28, 1)
PUBLISHED = {  # sizes of our own, so that this file does not depend on params.yaml
    "cnn.filters": [32, 64], "cnn.kernel_size": 3, "cnn.padding": "valid", "cnn.batch_norm": False,
    "cnn.dense": 128, "lstm.units": [128], "lstm.bidirectional": False, "lstm.dense": 64,
    "hybrid.filters": [32, 64], "hybrid.kernel_size": 3, "hybrid.padding": "same",
    "hybrid.batch_norm": False, "hybrid.units": [128], "hybrid.bidirectional": False,
    "hybrid.dense": 64,
}  # fmt: skip


@pytest.fixture
def make_model(make_params):
    """Return a function that builds a model of the sizes above, with changes."""

    def make(name: str, changes: dict | None = None, shape=SHAPE, classes: int = 10):
        params = make_params(PUBLISHED | (changes or {}))
        return build(name, shape, classes, params.models[name])

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
    ("cnn", {}, CONVOLUTIONS + dense(5 * 5 * 64, 128) + dense(128, 10)),
    ("cnn", {"cnn.batch_norm": True}, 225_034 + 4 * (32 + 64)),
    ("cnn", {"cnn.padding": "same"}, CONVOLUTIONS + dense(7 * 7 * 64, 128) + dense(128, 10)),
    ("cnn", {"cnn.filters": [8]}, convolution(3, 1, 8) + dense(13 * 13 * 8, 128) + dense(128, 10)),
    ("cnn", {"cnn.dense": 0}, CONVOLUTIONS + dense(5 * 5 * 64, 10)),
    ("lstm", {}, lstm(28, 128) + HEAD),
    ("lstm", {"lstm.units": [32, 16]}, lstm(28, 32) + lstm(32, 16) + dense(16, 64) + dense(64, 10)),
    ("lstm", {"lstm.bidirectional": True}, 2 * lstm(28, 128) + dense(256, 64) + dense(64, 10)),
    ("hybrid", {}, CONVOLUTIONS + lstm(7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.padding": "valid"}, CONVOLUTIONS + lstm(5 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.batch_norm": True}, CONVOLUTIONS + 384 + lstm(7 * 64, 128) + HEAD),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "count"), COUNTS)
def test_parameter_counts(make_model, name, changes, count):
    assert make_model(name, changes).count_params() == count


def test_parameter_counts_with_the_committed_parameters():
    sections = load_params(ROOT / "params.yaml").models
    counts = {name: build(name, SHAPE, 10, sections[name]).count_params() for name in sections}
    assert counts == {"cnn": 225_418, "lstm": 89_290, "hybrid": 296_970}


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 36, 3), (33, 17, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_images_of_any_size_become_probabilities(make_model, name, shape):
    model = make_model(name, shape=shape, classes=4)
    x = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    y = model.predict_on_batch(x)
    assert model.layers[0](x).numpy() == pytest.approx(x / 255, abs=1e-6)
    assert y.shape == (5, 4)
    assert y.dtype == np.float32
    assert y.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("cnn", 2 * ["Conv2D", "MaxPooling2D", "ReLU", "BatchNormalization"]
            + ["Flatten", "Dense", "Dropout", "Dense"]),
        ("lstm", ["Reshape", "LSTM", "Dropout", "Dense", "Dropout", "Dense"]),
        ("hybrid", 2 * ["Conv2D", "MaxPooling2D", "ReLU", "BatchNormalization"]
            + ["Reshape", "LSTM", "Dropout", "Dense", "Dropout", "Dense"]),
    ],
)  # fmt: skip
def test_the_layers_are_those_that_params_yaml_describes(make_model, name, layers):
    def found(dense: int) -> list[str]:
        changes = {"cnn.batch_norm": True, "hybrid.batch_norm": True, f"{name}.dense": dense}
        return [type(layer).__name__ for layer in make_model(name, changes).layers]

    assert found(8) == ["Rescaling", *layers]
    assert found(0) == ["Rescaling", *layers[:-3], "Dense"], "no dense layer, no dropout after it"


@pytest.mark.parametrize(("padding", "room"), [("valid", 3), ("same", 4)])
@pytest.mark.parametrize("name", ["cnn", "hybrid"])
def test_more_blocks_than_the_image_has_room_for_are_refused(make_model, name, padding, room):
    make_model(name, {f"{name}.padding": padding, f"{name}.filters": [4] * room})
    said = rf"{name}\.filters asks for {room + 1} .* a 28×28 image has room for {room} "
    with pytest.raises(StageError, match=said):
        make_model(name, {f"{name}.padding": padding, f"{name}.filters": [4] * (room + 1)})


NOT_ALLOWED = "is not allowed in stages/models/shared/safety.py"


@pytest.mark.parametrize(
    ("layer", "limit", "reason"),
    [
        ("GaussianNoise", None, f"keras.layers.GaussianNoise {NOT_ALLOWED}"),
        ("Lambda", None, f"keras.layers.Lambda {NOT_ALLOWED}"),
        ("Dropout", "MAX_OUTPUT", "returns more than 1000 values per image"),
        ("Dropout", "MAX_FILE", "bytes of weights; only 1000 are there or allowed"),
    ],
)
def test_a_model_that_could_not_be_loaded_is_refused_before_training(
    make_model, monkeypatch, layer, limit, reason
):
    added = getattr(keras.layers, layer)(float if layer == "Lambda" else 0.1)
    monkeypatch.setattr(blocks, "hidden_layer", lambda _: [added])
    if limit:
        monkeypatch.setattr(safety, limit, 1000)
    with pytest.raises(StageError, match=f"cnn could not be loaded from its file: .*{reason}"):
        make_model("cnn")


GRU = '''
from stages.common.params import Model


class Section(Model):
    """The section `gru` of `params.yaml`."""

    units: int


def build(input_shape, num_classes, p):
    from keras import layers

    from stages.models.shared import blocks

    height, width, channels = input_shape
    return blocks.sequential("gru", input_shape, [
        layers.Reshape((height, width * channels)),
        layers.GRU(p.units),
        *blocks.hidden_layer(p),
        blocks.output_layer(num_classes),
    ])
'''


@pytest.mark.extra
def test_a_new_model_is_one_file_and_one_section(project, tiny_document, make_npz):
    """And one stage in dvc.yaml, which DVC would run with this command."""
    gru = {key: value for key, value in tiny_document["lstm"].items() if key != "bidirectional"}
    project.set({"dataset": str(make_npz()), "epochs": 1, "gru": gru | {"units": 8}})
    project.path("stages/models/gru.py").write_text(GRU, encoding="utf-8")
    project.stage("prepare")
    printed = project.stage("train", "gru").stdout
    assert "gru: 627 parameters" in printed  # 3 · 8 · (12 + 8 + 2) + 9 · 8 + 9 · 3
    assert project.path("data/models/gru.keras").exists()
    assert len(project.read("plots/history/gru.csv").splitlines()) == 2
