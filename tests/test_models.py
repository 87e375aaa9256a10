"""The architectures: layers, shapes and exact parameter counts; and how to add a model."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from conftest import ROOT

from stages.common.arrays import Arrays
from stages.common.cli import StageError
from stages.common.params import load_params
from stages.models import build
from stages.models.shared import blocks, safety
from stages.models.shared.archive import load_model, save_model
from stages.training.session import train_model

pytestmark = pytest.mark.usefixtures("backend")
MODELS = ("cnn", "lstm", "hybrid")
SHAPE = (28, 28, 1)
PUBLISHED = {  # sizes of our own, so that this file does not depend on params.yaml
    "cnn.filters": [32, 64], "cnn.kernel_size": 3, "cnn.padding": "valid", "cnn.batch_norm": False,
    "cnn.frames": "mean", "cnn.head": "flatten", "cnn.dense": 128,
    "lstm.cell": "lstm", "lstm.read": "rows", "lstm.units": [128], "lstm.bidirectional": False,
    "lstm.pool": "last", "lstm.dense": 64,
    "hybrid.filters": [32, 64], "hybrid.kernel_size": 3, "hybrid.padding": "same",
    "hybrid.batch_norm": False, "hybrid.units": [128], "hybrid.bidirectional": False,
    "hybrid.head": "flatten", "hybrid.kind": "rows", "hybrid.cell": "lstm", "hybrid.pool": "last",
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


def gru(inputs: int, units: int) -> int:
    return 3 * units * (inputs + units + 2)  # one bias for the input, one for the state


def rnn(inputs: int, units: int) -> int:
    return units * (inputs + units + 1)


def convlstm(positions: int, inputs: int, units: int) -> int:
    return 4 * units * (positions * (inputs + units) + 1)


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


COUNTS += [
    ("cnn", {"cnn.head": "average"}, CONVOLUTIONS + dense(64, 128) + dense(128, 10)),
    ("lstm", {"lstm.cell": "gru"}, gru(28, 128) + HEAD),
    ("lstm", {"lstm.cell": "rnn"}, rnn(28, 128) + HEAD),
    ("lstm", {"lstm.read": "columns"}, lstm(28, 128) + HEAD),
    ("lstm", {"lstm.read": "both"}, 2 * lstm(28, 128) + dense(256, 64) + dense(64, 10)),
    ("lstm", {"lstm.pool": "mean"}, lstm(28, 128) + HEAD),
    ("hybrid", {"hybrid.cell": "gru"}, CONVOLUTIONS + gru(7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.cell": "rnn"}, CONVOLUTIONS + rnn(7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.head": "average"}, CONVOLUTIONS + lstm(64, 128) + HEAD),
    ("hybrid", {"hybrid.kind": "convlstm"},
     CONVOLUTIONS + convlstm(3, 64, 128) + dense(7 * 128, 64) + dense(64, 10)),
    ("hybrid", {"hybrid.kind": "convlstm", "hybrid.head": "average"},
     CONVOLUTIONS + convlstm(3, 64, 128) + HEAD),
]  # fmt: skip
FRAMES = 6  # of 28 × 28 pixels
OF_SEQUENCES = [
    ("cnn", {}, CONVOLUTIONS + dense(5 * 5 * 64, 128) + dense(128, 10)),
    ("cnn", {"cnn.head": "average"}, CONVOLUTIONS + dense(64, 128) + dense(128, 10)),
    ("cnn", {"cnn.frames": "channels"},
     convolution(3, 6, 32) + convolution(3, 32, 64) + dense(5 * 5 * 64, 128) + dense(128, 10)),
    ("lstm", {}, lstm(28 * 28, 128) + HEAD),
    ("lstm", {"lstm.read": "columns"}, lstm(28 * 28, 128) + HEAD),
    ("lstm", {"lstm.cell": "gru", "lstm.read": "both"},
     2 * gru(28 * 28, 128) + dense(256, 64) + dense(64, 10)),
    ("hybrid", {}, CONVOLUTIONS + lstm(7 * 7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.head": "average"}, CONVOLUTIONS + lstm(64, 128) + HEAD),
    ("hybrid", {"hybrid.batch_norm": True}, CONVOLUTIONS + 384 + lstm(7 * 7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.cell": "rnn"}, CONVOLUTIONS + rnn(7 * 7 * 64, 128) + HEAD),
    ("hybrid", {"hybrid.kind": "convlstm", "hybrid.units": [8, 4]},
     CONVOLUTIONS + convlstm(9, 64, 8) + convlstm(9, 8, 4) + dense(7 * 7 * 4, 64) + dense(64, 10)),
    ("hybrid", {"hybrid.kind": "convlstm", "hybrid.bidirectional": True, "hybrid.pool": "mean",
                "hybrid.head": "average"},
     CONVOLUTIONS + 2 * convlstm(9, 64, 128) + dense(256, 64) + dense(64, 10)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "count"), COUNTS)
def test_parameter_counts(make_model, name, changes, count):
    assert make_model(name, changes).count_params() == count


@pytest.mark.parametrize(("name", "changes", "count"), OF_SEQUENCES)
def test_parameter_counts_on_sequences(make_model, name, changes, count):
    assert make_model(name, changes, (FRAMES, *SHAPE)).count_params() == count


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


CHOICES = {
    "cnn": {"cnn.frames": ["mean", "channels"], "cnn.head": ["flatten", "average"]},
    "lstm": {"lstm.cell": ["lstm", "gru", "rnn"], "lstm.read": ["rows", "columns", "both"],
             "lstm.pool": ["last", "mean"], "lstm.bidirectional": [False, True]},
    "hybrid": {"hybrid.cell": ["lstm", "gru", "rnn"], "hybrid.head": ["flatten", "average"],
               "hybrid.pool": ["last", "mean"], "hybrid.bidirectional": [False, True]},
    "hybrid, convlstm": {"hybrid.kind": ["convlstm"], "hybrid.head": ["flatten", "average"],
                         "hybrid.pool": ["last", "mean"], "hybrid.bidirectional": [False, True]},
}  # fmt: skip
COMBINATIONS = [
    (name.partition(",")[0], dict(zip(values, each, strict=True)))
    for name, values in CHOICES.items()
    for each in itertools.product(*values.values())
]
SIZES = {
    "cnn.filters": [3, 4], "cnn.dense": 5, "lstm.units": [4, 3], "lstm.dense": 5,
    "hybrid.filters": [3, 4], "hybrid.units": [4, 3], "hybrid.dense": 5,
}  # fmt: skip


@pytest.mark.parametrize("shape", [(13, 12, 1), (4, 13, 12, 3)])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # all of the CNN's, a fifth of the others' with every value; the rest at night
        pytest.param(*each, marks=pytest.mark.slow if i % 5 and i > 3 else pytest.mark.extra)
        for i, each in enumerate(COMBINATIONS)
    ],
)
def test_every_combination_is_saved_and_plain_keras_loads_it(
    make_model, tmp_path, name, changes, shape
):
    model = make_model(name, SIZES | changes, shape, classes=3)
    x = np.random.default_rng(0).integers(0, 256, (7, *shape), dtype=np.uint8)
    expected = model.predict_on_batch(x)
    assert expected.shape == (7, 3)
    save_model(model, tmp_path / "a.keras")
    plain = keras.models.load_model(tmp_path / "a.keras", safe_mode=True)
    assert np.array_equal(plain.predict_on_batch(x), expected)
    assert np.array_equal(load_model(tmp_path / "a.keras").predict_on_batch(x), expected)
    save_model(model, tmp_path / "b.keras")
    assert (tmp_path / "b.keras").read_bytes() == (tmp_path / "a.keras").read_bytes()


class KilledError(Exception):
    """Ends a training after its first epoch."""


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(13, 12, 1), (3, 13, 12, 3)])
@pytest.mark.parametrize(("name", "changes"), COMBINATIONS)
def test_every_combination_resumes_and_reruns_to_equal_bytes(
    make_params, tmp_path, monkeypatch, name, changes, shape
):
    monkeypatch.chdir(tmp_path)
    sizes = {"epochs": 2, "train.batch_size": 16, f"{name}.shift": 1, f"{name}.dropout": 0.2}
    params = make_params(PUBLISHED | SIZES | changes | sizes)
    random = np.random.default_rng(0)
    data = [
        Arrays(random.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 3)
        for n in (40, 9)
    ]

    def trained(**options) -> bytes:
        keras.utils.clear_session()  # layers are numbered from the start, as in a new process
        training = train_model(name, params, *data, 3, log=lambda _: None, **options)
        assert len(training.history) == 2
        save_model(training.model, tmp_path / "model.keras")
        return (tmp_path / "model.keras").read_bytes()

    def die(_):
        raise KilledError

    expected = trained()
    assert trained() == expected
    facts = {"checkpoint_facts": {"data": "random"}}
    with pytest.raises(KilledError):
        train_model(name, params, *data, 3, log=lambda _: None, on_epoch=die, **facts)
    continued = []
    assert trained(on_epoch=lambda history: continued.append(len(history)), **facts) == expected
    assert continued == [1, 2], "it continued after the first epoch"


def test_reading_by_columns_is_reading_the_transposed_image_by_rows(make_model):
    by_columns = make_model("lstm", {"lstm.read": "columns"}, shape=(12, 9, 2))
    by_rows = make_model("lstm", {}, shape=(9, 12, 2))
    by_columns.set_weights(by_rows.get_weights())
    x = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 2), dtype=np.uint8)
    expected = by_rows.predict_on_batch(x.transpose(0, 2, 1, 3))
    assert by_columns.predict_on_batch(x) == pytest.approx(expected, abs=1e-6)


def test_the_hybrid_reads_the_feature_map_of_each_frame(make_model):
    """h_t = LSTM(Flatten(Conv2D(x_t))): the convolutions on every frame are those on an image."""
    of_images = make_model("hybrid", SIZES | {"hybrid.batch_norm": True}, (13, 12, 1))
    of_sequences = make_model("hybrid", SIZES | {"hybrid.batch_norm": True}, (4, 13, 12, 1))
    weights = of_sequences.get_weights()
    known = of_images.get_weights()[:12]  # of the convolutions and batch norms
    weights[:12] = [new.reshape(old.shape) for new, old in zip(known, weights[:12], strict=True)]
    of_sequences.set_weights(weights)
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 13, 12, 1), dtype=np.uint8)
    steps = keras.Model(of_sequences.inputs[0], of_sequences.get_layer(index=9).output)(x)
    for t in range(4):
        frame = keras.Model(of_images.inputs[0], of_images.get_layer(index=8).output)(x[:, t])
        assert steps[:, t].numpy() == pytest.approx(frame.numpy().reshape(5, -1), abs=1e-5)


def test_a_convolutional_gru_is_refused(make_model):
    with pytest.raises(StageError, match=r"hybrid\.kind=convlstm has lstm cells only.*cell is gru"):
        make_model("hybrid", {"hybrid.kind": "convlstm", "hybrid.cell": "gru"})


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
        ("Dropout", "MAX_FILE", "bytes; the file or the limit has only 1000"),
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


@pytest.mark.extra
def test_a_branched_model_has_the_same_limits(make_model, monkeypatch):
    monkeypatch.setattr(blocks, "hidden_layer", lambda _: [keras.layers.Lambda(lambda x: x)])
    with pytest.raises(StageError, match=f"keras.layers.Lambda {NOT_ALLOWED}"):
        make_model("lstm", {"lstm.read": "both"})
    monkeypatch.undo()
    monkeypatch.setattr(safety, "MAX_OUTPUT", 1000)
    with pytest.raises(StageError, match="returns more than 1000 values per image"):
        make_model("lstm", {"lstm.read": "both", "lstm.units": [2000]})


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
    others = ("bidirectional", "cell", "pool", "read")
    gru = {key: value for key, value in tiny_document["lstm"].items() if key not in others}
    project.set({"dataset": str(make_npz()), "epochs": 1, "gru": gru | {"units": 8}})
    project.path("stages/models/gru.py").write_text(GRU, encoding="utf-8")
    project.stage("prepare")
    printed = project.stage("train", "gru").stdout
    assert "gru: 627 parameters" in printed  # 3 · 8 · (12 + 8 + 2) + 9 · 8 + 9 · 3
    assert project.path("data/models/gru.keras").exists()
    assert len(project.read("plots/history/gru.csv").splitlines()) == 2
