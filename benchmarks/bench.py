"""Measure seconds per epoch: ours, plain Keras, PyTorch, next to the machine's matrix product.

    python -m benchmarks.bench --torch .venv-torch/bin/python

Each measurement is its own process. The sides alternate and each round starts with another side, so
that changes of the machine's speed favour none; ratios are taken within a round. Prints the results
and writes `benchmarks/results.json`. Needs MNIST's prepared arrays (`dvc repro prepare`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.arrays import PREPARED, read_manifest
from stages.common.cli import StageError, run
from stages.common.files import write_json
from stages.common.overrides import flatten, with_overrides
from stages.common.params import PARAMS_FILE, Params, parse_params, read_yaml
from stages.training.runtime import choose_threads, configure
from stages.training.session import processor

ROWS = (("cnn", "float32"), ("cnn", "bfloat16"), ("lstm", "float32"), ("hybrid", "float32"))
PEERS = Path("benchmarks/peers")
SETTINGS = Path("benchmarks/settings.yaml")
SIDES = ("ours", "keras", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare seconds per epoch.")
    parser.add_argument("--torch", type=Path, help="a Python with PyTorch; without it, no ratio")
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    arguments = parser.parse_args()
    sides = SIDES if arguments.torch else SIDES[:2]
    manifest = checked_data(arguments.data)
    params = measured_params()
    needed = count_multiply_adds(manifest, params)
    rows = [row for row in ROWS if row[1] == "float32" or has_bfloat16()]
    rates: list[float] = []
    seconds: dict[tuple[str, str], list[dict[str, float]]] = {row: [] for row in rows}
    facts: dict[tuple[str, str], dict[str, Any]] = {row: {} for row in rows}
    for number in range(arguments.rounds):
        peak = measure([sys.executable, "benchmarks/matmul.py"])
        rates.append(peak["gflops"])
        turn = number % len(sides)
        for row in rows:
            taken = {}
            for side in sides[turn:] + sides[:turn]:
                facts[row][side] = measure(command(side, *row, arguments, params))
                taken[side] = facts[row][side]["epochs"][-1]["seconds"]
            if facts[row]["ours"]["parameters"] != facts[row]["keras"]["parameters"]:
                raise StageError(f"{SETTINGS} has another {row[0]} than {PEERS}/keras_script.py")
            seconds[row].append(taken)
            shown = ", ".join(f"{side} {value:.1f} s" for side, value in taken.items())
            print(f"round {number + 1}/{arguments.rounds} {' '.join(row)}: {shown}", flush=True)
    gflops = statistics.median(rates)
    found = [
        summary(row, seconds[row], facts[row], needed[row[0]], manifest, gflops) for row in rows
    ]
    result = {
        "machine": machine(),
        "dataset": manifest["dataset"],
        "batch_size": params.train.batch_size,
        "rounds": arguments.rounds,
        "matmul_blas": peak["blas"],
        "matmul_gflops": round(gflops, 1),
        "matmul_gflops_range": [round(min(rates), 1), round(max(rates), 1)],
        "rows": found,
    }
    write_json(arguments.output, result)
    for row in found:
        torch = f", {row['ratio_torch']:.2f} times in PyTorch" if row["ratio_torch"] else ""
        print(
            f"{row['model']} {row['precision']}: {row['ours_seconds']:.1f} s per epoch, "
            f"{row['ratio_keras']:.2f} times in plain Keras{torch}; "
            f"{row['share_of_matmul']:.2f} of the peak"
        )


def machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores"


def measured_params(overrides: Mapping[str, Any] | None = None) -> Params:
    """Return `params.yaml` with the benchmarks' own settings, and dotted `overrides`."""
    document = with_overrides(read_yaml(PARAMS_FILE), flatten(read_yaml(SETTINGS)))
    return parse_params(with_overrides(document, overrides or {}))


def checked_data(folder: Path) -> dict[str, Any]:
    """Return the manifest of the prepared arrays in `folder`.

    If the images do not fit the peers' layers, or the pipeline has prepared another dataset than
    MNIST, as `make run` does, this raises StageError.
    """
    manifest = read_manifest(folder)
    if manifest["image_shape"] != [28, 28, 1]:
        raise StageError(f"{folder}: the scripts in {PEERS} can only read images of 28×28×1")
    if folder == PREPARED and manifest["dataset"] != "mnist":
        raise StageError(
            f"{folder} has {manifest['dataset']}, the benchmarks need mnist: set `dataset: mnist` "
            "in params.yaml and run `dvc repro prepare`, or give another folder with --data"
        )
    return manifest


def command(
    side: str, model: str, precision: str, arguments: argparse.Namespace, params: Params
) -> list[str]:
    """Return the command that measures one side. The peers get our batch size and dropout."""
    start = {
        "ours": [sys.executable, "-m", "benchmarks.ours"],
        "keras": [sys.executable, str(PEERS / "keras_script.py")],
        "torch": [str(arguments.torch), str(PEERS / "torch_script.py")],
    }[side]
    options = ["--precision", precision, "--fraction", str(arguments.fraction)]
    if side != "ours":
        options += ["--batch", str(params.train.batch_size)]
        options += ["--dropout", str(params.models[model].dropout)]
    return [*start, model, str(arguments.data), *options]


def measure(words: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """Run a command, here or in `folder`, and return the JSON object in its last line."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(  # noqa: S603 -- our own scripts
        words, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StageError(f"{' '.join(words)} failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def count_multiply_adds(manifest: Mapping[str, Any], params: Params) -> dict[str, dict[str, int]]:
    """Return the multiply-adds per image in training and in inference, by model."""
    configure(choose_threads(0, params.train.batch_size, batch_norm=True), seed=1)
    from stages.evaluation.counting import inference, training
    from stages.models import build

    shape, classes = manifest["image_shape"], len(manifest["class_names"])
    models = {name: build(name, shape, classes, params.models[name]) for name, _ in ROWS}
    return {
        name: {"training": training(model), "inference": inference(model)}
        for name, model in models.items()
    }


def has_bfloat16() -> bool:
    """Return whether the processor has bfloat16 products. Without them the row means nothing."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def summary(
    row: tuple[str, str],
    rounds: Sequence[Mapping[str, float]],
    facts: Mapping[str, Mapping[str, Any]],
    needed: Mapping[str, int],
    manifest: Mapping[str, Any],
    gflops: float,
) -> dict[str, Any]:
    """Return one row of the results: medians, ratios with their range, and each round."""
    flops = 2 * (
        needed["training"] * facts["ours"]["examples"]
        + needed["inference"] * manifest["splits"]["val"]["images"]
    )
    median = {side: statistics.median(r[side] for r in rounds) for side in rounds[0]}
    found: dict[str, Any] = {"model": row[0], "precision": row[1]}
    for side in SIDES:
        found[f"{side}_seconds"] = round(median[side], 2) if side in median else None
    for side in SIDES[1:]:
        ratios = [r[side] / r["ours"] for r in rounds if side in r]
        ends = [round(min(ratios), 2), round(max(ratios), 2)] if ratios else None
        found[f"ratio_{side}"] = round(statistics.median(ratios), 2) if ratios else None
        found[f"ratio_{side}_range"] = ends
    found["share_of_matmul"] = round(flops / median["ours"] / 1e9 / gflops, 3)
    found["gflop_per_epoch"] = round(flops / 1e9, 1)
    found["parameters"] = {side: facts[side]["parameters"] for side in facts}
    found["threads"] = facts["ours"]["threads"]
    found["rounds"] = [{side: round(value, 2) for side, value in taken.items()} for taken in rounds]
    return found


if __name__ == "__main__":
    run(main)
