"""Measure a training of ten epochs on a GPU: our models on JAX, next to PyTorch on the same card.

    python -m benchmarks.gpu

This Python needs JAX and PyTorch for the GPU, Keras, h5py, joblib, Pydantic and ruamel.yaml, but no
TensorFlow. Needs MNIST's prepared arrays (`dvc repro prepare`). Both sides keep the data on the
card, and multiply in TF32. Writes `benchmarks/gpu.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import PEERS, checked_data, measure, measured_params
from stages.common.arrays import PREPARED
from stages.common.cli import run
from stages.common.files import write_json

MODELS = ("cnn", "lstm", "hybrid")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare trainings on a GPU.")
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    parser.add_argument("--device", default="cuda", help="of PyTorch: cuda or cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/gpu.json"))
    arguments = parser.parse_args()
    checked_data(arguments.data)
    os.environ["KERAS_BACKEND"] = "jax"  # for our side
    epochs, runs = arguments.epochs, arguments.runs
    params = measured_params()
    rows = []
    for model in MODELS:
        shared = [model, str(arguments.data), "--fraction", str(arguments.fraction)]
        ours = measure([
            sys.executable, "-m", "benchmarks.jax_training", *shared,
            "--epochs", str(epochs), "--runs", str(runs),
        ])  # fmt: skip
        torch = measure([
            sys.executable, str(PEERS / "torch_script.py"), *shared,
            "--epochs", str(epochs * runs), "--device", arguments.device,
            "--batch", str(params.train.batch_size),
            "--dropout", str(params.models[model].dropout),
        ])  # fmt: skip
        seconds = [epoch["seconds"] for epoch in torch["epochs"]]
        taken = [sum(seconds[i : i + epochs]) for i in range(0, len(seconds), epochs)]
        rows.append({
            "model": model,
            "compile_seconds": round(ours["compile_seconds"], 1),
            "ours_seconds": spread([run["seconds"] for run in ours["runs"]]),
            "torch_seconds": spread(taken),
            "val_accuracy": spread([run["val_accuracy"] for run in ours["runs"]], digits=4),
        })  # fmt: skip
        print(rows[-1], flush=True)
    facts = {"device": ours["device"], "epochs": epochs, "runs": runs}
    versions = ours["versions"] | torch["versions"]
    write_json(arguments.output, facts | {"versions": versions, "rows": rows})


def spread(values: Sequence[float], digits: int = 2) -> list[Any]:
    """Return median, smallest and largest of some values, rounded."""
    return [round(f(values), digits) for f in (statistics.median, min, max)]


if __name__ == "__main__":
    run(main)
