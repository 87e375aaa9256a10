"""Parameters and multiply-adds per layer, and the drawings made from them."""

from __future__ import annotations

import pytest

from stages.models import build
from stages.reporting.drawing import as_text, layer_table

pytestmark = pytest.mark.usefixtures("backend")
IMAGE, SEQUENCE = (12, 10, 1), (4, 12, 10, 1)


@pytest.fixture
def layers_of(make_params):
    def make(name: str, shape=IMAGE, **changes):
        from stages.evaluation.counting import architecture

        changes = {f"{name}.{key}": value for key, value in changes.items()}
        return architecture(build(name, shape, 3, make_params(changes).models[name]))

    return make


def counted(layers, *kinds: str) -> list[int]:
    return [layer["multiply_adds"] for layer in layers if layer["kind"] in kinds]


def test_convolutions_and_dense_layers(layers_of):
    layers = layers_of("cnn", kernel_size=3, filters=[4, 5], padding="same", head="flatten",
                       dense=8)  # fmt: skip
    assert counted(layers, "Conv2D") == [12 * 10 * 9 * 1 * 4, 6 * 5 * 9 * 4 * 5]
    assert counted(layers, "Dense") == [3 * 2 * 5 * 8, 8 * 3]
    assert sum(counted(layers, "MaxPooling2D", "ReLU", "BatchNormalization", "Dropout")) == 0
    of_sequence = layers_of("cnn", SEQUENCE, kernel_size=3, filters=[4], padding="same")
    assert counted(of_sequence, "Conv3D") == [4 * 12 * 10 * 9 * 4]


@pytest.mark.parametrize(("cell", "kind", "gates"), [
    ("lstm", "LSTM", 4), ("gru", "GRU", 3), ("rnn", "SimpleRNN", 1),
])  # fmt: skip
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_count_every_time_step(layers_of, cell, kind, gates, directions):
    layers = layers_of("lstm", cell=cell, units=[6, 7], bidirectional=directions == 2, dense=0)
    first = directions * 12 * gates * 6 * (10 + 6)
    assert counted(layers, kind) == [first, directions * 12 * gates * 7 * (directions * 6 + 7)]
    assert {layer["step"] for layer in layers if layer["steps"]} == {"row"}


def test_convolutional_lstms(layers_of):
    settings = {"kind": "convlstm", "filters": [4], "units": [5], "padding": "same"}
    rows = layers_of("hybrid", kernel_size=3, **settings)  # 6 rows of 5 positions
    assert counted(rows, "ConvLSTM1D") == [6 * 5 * 3 * 4 * 5 * (4 + 5)]
    frames = layers_of("hybrid", SEQUENCE, kernel_size=3, **settings)
    assert counted(frames, "ConvLSTM2D") == [4 * 6 * 5 * 9 * 4 * 5 * (4 + 5)]
    assert {layer["step"] for layer in frames if layer["steps"]} == {"frame"}


def test_a_layer_that_cannot_be_counted_is_named(backend):
    from stages.evaluation.counting import architecture

    layers = backend.layers
    model = backend.Sequential([layers.Input((4,)), layers.Embedding(3, 2), layers.Flatten()])
    with pytest.raises(ValueError, match="no count for Embedding"):
        architecture(model)


def test_the_table_adds_up_and_the_drawing_unrolls_the_time_steps(layers_of):
    layers = layers_of("lstm", read="both", units=[6], dense=0)
    *lines, total = layer_table(layers)
    assert [line[0] for line in lines if "LSTM" in line[0]] == ["LSTM, 12 rows", "LSTM, 10 columns"]
    for column in (2, 4):
        values = [int(line[column].replace(",", "")) for line in lines]
        assert sum(values) == int(total[column].replace(",", "")) > 0
    short = layers_of("lstm", (3, 10, 1), units=[6], dense=0)
    assert as_text(short).splitlines() == [
        "3×10×1", "  row 1   row 2   row 3", "    ↓       ↓       ↓",
        "   LSTM →  LSTM →  LSTM", "6", "  ↓ Dense", "3",
    ]  # fmt: skip
    assert "row 1    row 2      …      row 12" in as_text(layers)


@pytest.mark.extra
def test_the_tool_describes_the_model_of_the_parameters(pipeline):
    printed = pipeline.module("tools.describe", "lstm").stdout
    assert "| LSTM, 28 rows" in printed or "| LSTM, 8 rows" in printed
    assert printed.count("↓ Dense") == 2
