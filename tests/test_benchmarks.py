"""The benchmarks run, and count what they say they count."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from benchmarks import bench, time_to_accuracy
from benchmarks import pipeline as around
from benchmarks.bench import command, measure, measured_params
from stages.common.params import model_names, read_yaml

TORCH = ROOT / ".venv-torch/bin/python"
HAS_JAX = any((ROOT / ".venv-torch/lib").glob("*/site-packages/jax"))
HAS_TORCH = (ROOT / ".venv-torch/installed").exists()  # written at the end of the installation


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """A folder of prepared arrays of noise, with 2,560 images to train on."""
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


def run_module(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_short_benchmark_measures_every_side(arrays, tmp_path):
    output = tmp_path / "results.json"
    words = ["benchmarks.bench", "--rounds", "1", "--fraction", "0.1", "--data", str(arrays)]
    torch = ["--torch", str(TORCH)] if HAS_TORCH else []
    printed = run_module(*words, "--output", str(output), *torch)
    result = json.loads(output.read_text())
    assert {row["model"] for row in result["rows"]} == set(model_names())
    assert result["matmul_gflops"] > 1
    assert result["matmul_blas"]
    for row in result["rows"]:
        assert row["ours_seconds"] > 0
        ratio = row["keras_seconds"] / row["ours_seconds"]
        assert row["ratio_keras"] == pytest.approx(ratio, rel=0.2, abs=0.05)
        assert 0 < row["share_of_matmul"] < 1.5
        (only,) = row["rounds"]
        assert (only["ours"], only["keras"]) == (row["ours_seconds"], row["keras_seconds"])
        assert row["parameters"]["ours"] == row["parameters"]["keras"]
        assert (row["ratio_torch"] is not None) == HAS_TORCH
        assert f"{row['model']} {row['precision']}: {row['ours_seconds']:.1f} s per" in printed
        if HAS_TORCH:
            # PyTorch's parameters exclude moving averages, and its LSTM has two biases.
            averages = 2 * (32 + 64)
            extra = {"cnn": -averages, "lstm": 4 * 128, "hybrid": 4 * 144 - averages}[row["model"]]
            assert row["parameters"]["torch"] == row["parameters"]["ours"] + extra


@pytest.mark.slow
@pytest.mark.skipif(not HAS_JAX, reason="benchmarks/requirements-gpu.txt is not installed")
def test_the_gpu_benchmark_measures_both_sides(arrays, tmp_path):
    output = tmp_path / "gpu.json"
    words = ["-m", "benchmarks.gpu", "--data", str(arrays), "--device", "cpu"]
    words += ["--epochs", "2", "--runs", "2", "--fraction", "0.12"]  # two batches: 256, 51 images
    command = [str(TORCH), *words, "--output", str(output)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(output.read_text())
    assert [row["model"] for row in result["rows"]] == ["cnn", "lstm", "hybrid"]
    for row in result["rows"]:
        assert len(row["ours_seconds"]) == len(row["torch_seconds"]) == 2
        assert min(row["ours_seconds"] + row["torch_seconds"]) > 0
        assert all(0 <= value <= 1 for value in row["val_accuracy"])


@pytest.mark.extra
def test_our_side_trains_with_the_settings_it_gets(arrays):
    words = ["benchmarks.ours", "--epochs", "1", "--fraction", "0.1", "lstm", str(arrays)]
    plain, wider = (
        json.loads(run_module(*words, *more))["parameters"]
        for more in ((), ("--set", '{"lstm.dense": 65}'))
    )
    assert wider - plain == 128 + 1 + 10  # one more unit: its weights, its bias, its outputs


@pytest.mark.slow
def test_the_stages_around_the_training_are_measured(clone):
    evaluated = measure([sys.executable, "-c", around.EVALUATE], clone.folder)["seconds"]
    assert evaluated > 0
    assert around.report_seconds(clone.folder) > 0
    same = clone.run("git", "status", "--porcelain", "metrics/test.json", "plots/per_class.csv")
    assert same.stdout == ""
    rounds = [
        dict.fromkeys(around.FIGURES, 2.0) | {"evaluate_seconds": seconds}
        for seconds in (1.0, 1e6, evaluated)
    ]
    assert around.summary(rounds)["evaluate_seconds"] == {
        "median": round(max(1.0, evaluated), 2),
        "range": [round(min(1.0, evaluated), 2), 1e6],
        "rounds": [1.0, 1e6, round(evaluated, 2)],
    }


@pytest.mark.extra
@pytest.mark.parametrize("name", ["bench", "time_to_accuracy"])
def test_another_dataset_than_mnist_is_not_measured(pipeline, name):
    done = pipeline.module(f"benchmarks.{name}", status=1, PYTHONPATH=str(ROOT))
    assert done.stderr.startswith("error: data/prepared has digits, the benchmarks need mnist")
    assert len(done.stderr.splitlines()) == 1


def test_the_peers_have_our_batch_size_and_dropout(make_params, arrays):
    params = make_params({"train.batch_size": 48, "cnn.dropout": 0.35})
    options = Namespace(data=arrays, fraction=1.0, torch="python")
    for side in ("keras", "torch"):
        words = command(side, "cnn", "float32", options, params)
        assert dict(zip(words[4::2], words[5::2], strict=True)) == {
            "--precision": "float32", "--fraction": "1.0", "--batch": "48", "--dropout": "0.35",
        }  # fmt: skip


@pytest.mark.parametrize("name", model_names())
def test_multiply_adds_are_those_that_tensorflow_counts(make_params, backend, name):
    import tensorflow as tf
    from tensorflow.python.framework.ops import get_stats_for_node_def

    from stages.evaluation.counting import inference, training
    from stages.models import build

    model = build(name, (28, 28, 1), 10, make_params().models[name])
    counted = inference(model), training(model)
    for layer in model.layers:
        if isinstance(layer, backend.layers.LSTM):
            layer.unroll = True  # TensorFlow counts the body of a loop once

    def flops(function) -> int:
        graph = function.get_concrete_function(tf.TensorSpec((1, 28, 28, 1), tf.float32)).graph
        return sum(flops_of(graph, op) for op in graph.get_operations())

    def flops_of(graph, op) -> int:
        if op.type == "Conv2DBackpropFilter":  # TensorFlow counts it on the padded image
            (*_, channels), (_, height, width, filters) = op.inputs[0].shape, op.inputs[2].shape
            return 2 * height * width * filters * 9 * channels
        if op.type == "Conv2DBackpropInput":
            height, width, filters = op.inputs[2].shape[1:]
            image = op.outputs[0].shape[1:] == (28, 28, 1)  # unused, so TensorFlow prunes it
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

    assert flops(forward) == 2 * counted[0]
    assert flops(both) == pytest.approx(2 * counted[1], rel=0.01)


def test_seconds_until_the_accuracy_is_reached():
    epochs = [{"seconds": 2.0, "val_accuracy": a} for a in (0.5, 0.9, 0.8)]
    found = [time_to_accuracy.seconds_until(epochs, target) for target in (0.7, 0.5, 0.95)]
    assert found == [4, 2, None]


def test_a_ratio_needs_the_accuracy_in_every_round(monkeypatch):
    ours = {"float32": iter([0.95, 0.9, 0.92]), "bfloat16": iter([0.95, 0.89, 0.92])}
    plain = [{"seconds": 10.0, "val_accuracy": 0.9}]
    monkeypatch.setattr(time_to_accuracy, "has_bfloat16", lambda: True)
    monkeypatch.setattr(time_to_accuracy, "plain_epochs", lambda *_: plain)
    monkeypatch.setattr(
        time_to_accuracy,
        "our_epochs",
        lambda _, precision, *__: [{"seconds": 2.0, "val_accuracy": next(ours[precision])}],
    )
    reached, not_always = time_to_accuracy.compare("cnn", 3, Path())
    assert (reached["share"], reached["share_range"]) == (0.2, [0.2, 0.2])
    assert (not_always["share"], not_always["our_seconds"]) == (None, [2.0, None, 2.0])


def test_the_benchmarks_do_not_follow_the_recipes(monkeypatch):
    """Whatever params.yaml says about layers and recipes, the benchmarks measure the same."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    usual = measured_params()
    for model in model_names():
        changed = {"dropout": 0.45, "learning_rate": 0.5, "shift": 3, "batch_size": 32}
        document[model] |= changed
    document["lstm"]["units"] = [7]
    monkeypatch.setattr(bench, "read_yaml", lambda path: document if path.name == "params.yaml"
                        else read_yaml(path))  # fmt: skip
    assert measured_params().models == usual.models
    (epochs,) = {epochs for _, epochs in time_to_accuracy.OURS["cnn"]}
    short = measured_params(time_to_accuracy.CHANGED["cnn"] | {"epochs": epochs})
    assert (short.models["cnn"].learning_rate, short.epochs) == (0.006, 2)
