"""Measure a training of ten epochs on a GPU: our models on JAX, next to PyTorch on the same card.

    python -m benchmarks.gpu

This Python needs the packages in `requirements-gpu.txt`, built for the GPU, and no TensorFlow. The
script needs MNIST's prepared arrays (`dvc repro prepare`). Both sides keep the data on the card and
multiply in TF32. Writes `benchmarks/gpu.json`: seconds of each run, validation included.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.bench import PEERS, ROWS, checked_data, measure, measured_params
from stages.common.arrays import PREPARED
from stages.common.cli import run
from stages.common.files import write_json


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
    for model in dict(ROWS):
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
            "ours_seconds": [round(run["seconds"], 2) for run in ours["runs"]],
            "torch_seconds": [round(value, 2) for value in taken],
            "val_accuracy": [round(run["val_accuracy"], 4) for run in ours["runs"]],
        })  # fmt: skip
        print(rows[-1], flush=True)
    facts = {"device": ours["device"], "epochs": epochs, "runs": runs}
    versions = ours["versions"] | torch["versions"]
    write_json(arguments.output, facts | {"versions": versions, "rows": rows})


if __name__ == "__main__":
    run(main)
