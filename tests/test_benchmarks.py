"""The benchmarks run, and count what they say that they count."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT

from benchmarks import pipeline as pipeline_cost
from benchmarks import time_to_accuracy
from benchmarks.bench import command, measure
from benchmarks.growth import TIMES, repeat
from benchmarks.multiply_adds import inference, training
from benchmarks.time_to_accuracy import seconds_until
from stages.models import build
from stages.params import MODELS
from stages.study.file import flat, read_study

TORCH = ROOT / ".venv-torch/bin/python"
HAS_TORCH = (ROOT / ".venv-torch/installed").exists()  # written when all is


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """A folder of prepared arrays as large as a tenth of a tenth of MNIST, made of noise."""
    folder = tmp_path_factory.mktemp("arrays")
    random = np.random.default_rng(0)
    splits = {"train": 2560, "val": 250}
    for part, n in splits.items():
        np.save(folder / f"x_{part}.npy", random.integers(0, 256, (n, 28, 28, 1), np.uint8))
        np.save(folder / f"y_{part}.npy", (np.arange(n) % 10).astype(np.int32))
    manifest = {
        "dataset": "noise",
        "image_shape": [28, 28, 1],
        "class_names": list("0123456789"),
        "splits": {part: {"images": n} for part, n in splits.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def run_module(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_short_benchmark_measures_every_side(arrays, tmp_path):
    output = tmp_path / "results.json"
    words = ["benchmarks.bench", "--rounds", "1", "--fraction", "0.1", "--data", str(arrays)]
    torch = ["--torch", str(TORCH)] if HAS_TORCH else []
    done = run_module(*words, "--output", str(output), *torch)
    result = json.loads(output.read_text())
    assert {row["model"] for row in result["rows"]} == set(MODELS)
    assert result["matmul_gflops"] > 1
    for row in result["rows"]:
        assert row["ours_seconds"] > 0
        assert row["ratio_keras"] == pytest.approx(
            row["keras_seconds"] / row["ours_seconds"], rel=0.2, abs=0.05
        )
        assert 0 < row["share_of_matmul"] < 1.5
        (only,) = row["rounds"]
        assert (only["ours"], only["keras"]) == (row["ours_seconds"], row["keras_seconds"])
        assert row["parameters"]["ours"] == row["parameters"]["keras"]
        assert (row["ratio_torch"] is not None) == HAS_TORCH
        assert f"| {row['model']} | {row['precision']} |" in done.stdout
    if HAS_TORCH:
        # PyTorch does not count the moving averages as parameters, and its LSTM has two biases.
        averages = 2 * (32 + 64)
        extra = {"cnn": -averages, "lstm": 4 * 128, "hybrid": 4 * 144 - averages}
        for row in result["rows"]:
            ours = row["parameters"]["ours"]
            assert row["parameters"]["torch"] == ours + extra[row["model"]]


@pytest.mark.parametrize("name", ["bench", "growth", "time_to_accuracy"])
def test_what_the_quick_start_prepared_is_not_measured(pipeline, name):
    done = pipeline.run(sys.executable, "-m", f"benchmarks.{name}", status=1, PYTHONPATH=str(ROOT))
    assert done.stderr.startswith("error: data/prepared has digits, the benchmarks are of mnist")
    assert len(done.stderr.splitlines()) == 1


def test_the_peers_have_our_batch_and_dropout(make_params, arrays):
    params = make_params({"train.batch_size": 48, "cnn.dropout": 0.35})
    options = Namespace(data=arrays, fraction=1.0, torch="python")
    for side in ("keras", "torch"):
        words = command(side, "cnn", "float32", options, params)
        assert dict(zip(words[4::2], words[5::2], strict=True)) == {
            "--precision": "float32", "--fraction": "1.0", "--batch": "48", "--dropout": "0.35",
        }  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds_are_those_that_tensorflow_counts(make_params, name):
    import tensorflow as tf
    from tensorflow.python.framework.ops import get_stats_for_node_def

    model = build(name, (28, 28, 1), 10, getattr(make_params({}), name))
    hand_counted = inference(model), training(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.LSTM):
            layer.unroll = True  # TensorFlow counts the body of a loop once

    def flops(function) -> int:
        graph = function.get_concrete_function(tf.TensorSpec((1, 28, 28, 1), tf.float32)).graph
        return sum(flops_of(graph, op) for op in graph.get_operations())

    def flops_of(graph, op) -> int:
        if op.type == "Conv2DBackpropFilter":  # which TensorFlow counts on the padded image
            (*_, channels), (_, height, width, filters) = op.inputs[0].shape, op.inputs[2].shape
            return 2 * height * width * filters * 9 * channels
        if op.type == "Conv2DBackpropInput":
            height, width, filters = op.inputs[2].shape[1:]
            image = op.outputs[0].shape[1:] == (28, 28, 1)  # nobody reads it: it is pruned
            return 0 if image else 2 * height * width * filters * 9 * op.outputs[0].shape[3]
        if op.type in ("MatMul", "Conv2D"):
            return get_stats_for_node_def(graph, op.node_def, "flops").value
        return 0

    @tf.function
    def forward(x):
        return model(x, training=False)

    @tf.function
    def both(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    assert flops(forward) == 2 * hand_counted[0]
    assert flops(both) == pytest.approx(2 * hand_counted[1], rel=0.01)


def test_growth_repeats_the_training_set(arrays, tmp_path):
    added = repeat(arrays, tmp_path)
    before = np.load(arrays / "x_train.npy")
    after = np.load(tmp_path / "x_train.npy", mmap_mode="r")
    assert after.shape == (TIMES * len(before), 28, 28, 1)
    assert (after[-len(before) :] == before).all()
    assert added == (TIMES - 1) * before.nbytes
    assert len(np.load(tmp_path / "y_train.npy")) == len(after)


def test_what_the_pipeline_adds_is_measured_in_a_pipeline_that_ran(clone):
    evaluated = measure([sys.executable, "-c", pipeline_cost.EVALUATE], clone.folder)["seconds"]
    assert evaluated > 0
    assert pipeline_cost.report_seconds(clone.folder) > 0
    same = clone.run("git", "status", "--porcelain", "metrics/evaluation.json", "plots/per_class")
    assert same.stdout == ""
    rounds = [
        dict.fromkeys(pipeline_cost.FIGURES, 2.0) | {"evaluate_seconds": seconds}
        for seconds in (1.0, evaluated, 1e6)
    ]
    figures = pipeline_cost.summary(rounds)
    assert figures["evaluate_seconds"]["median"] == pytest.approx(max(1, evaluated), abs=0.01)
    assert figures["evaluate_seconds"]["rounds"] == [1.0, round(evaluated, 2), 1e6]
    row = "| `dvc repro` with nothing to do | 2.0 s | 2.0 s to 2.0 s | 2.5 s |"
    assert row in pipeline_cost.table({"figures": figures})


def test_seconds_until_the_accuracy_is_there():
    epochs = [{"seconds": 2.0, "val_accuracy": a} for a in (0.5, 0.9, 0.8)]
    assert seconds_until(epochs, 0.7) == 4
    assert seconds_until(epochs, 0.5) == 2
    assert seconds_until(epochs, 0.95) is None


def test_the_short_recipe_is_one_that_was_searched():
    study = read_study(ROOT / "studies/search_cnn_2_epochs.yaml")
    (epochs,) = {epochs for _, epochs in time_to_accuracy.OURS["cnn"]}
    assert study.evaluate == "val"
    assert study.grid[0]["epochs"] == [epochs]
    searched = study.base | study.variants["batch 128"]
    changed = time_to_accuracy.CHANGED["cnn"]
    assert changed.keys() <= searched.keys()
    committed = flat(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    assert {key: (committed | changed)[key] for key in searched} == searched


def test_our_side_trains_with_what_is_set(arrays):
    words = ["benchmarks.ours", "--epochs", "1", "--fraction", "0.1", "lstm", str(arrays)]
    plain, wider = (
        json.loads(run_module(*words, *more).stdout)["parameters"]
        for more in ((), ("--set", '{"lstm.dense": 65}'))
    )
    assert wider - plain == 128 + 1 + 10  # one more unit: its weights, its bias, its outputs


def test_a_share_is_told_only_of_what_got_there_in_every_round(monkeypatch):
    plain = [{"seconds": 10.0, "val_accuracy": 0.9}]
    ours = {"float32": iter([0.95, 0.9, 0.92]), "bfloat16": iter([0.95, 0.89, 0.92])}
    monkeypatch.setattr(time_to_accuracy, "has_bfloat16", lambda: True)
    monkeypatch.setattr(time_to_accuracy, "plain_epochs", lambda *_: plain)
    monkeypatch.setattr(
        time_to_accuracy,
        "our_epochs",
        lambda _, precision, *__: [{"seconds": 2.0, "val_accuracy": next(ours[precision])}],
    )
    reached, not_always = time_to_accuracy.compare("cnn", 3, None)
    assert (reached["share"], reached["share_range"]) == (0.2, [0.2, 0.2])
    assert (not_always["share"], not_always["our_seconds"]) == (None, [2.0, None, 2.0])
