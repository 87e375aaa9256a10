"""Seconds per epoch side by side: ours, the plain Keras script, PyTorch, the machine's limit.

    python -m benchmarks.bench --torch .venv-torch/bin/python

Each measurement is a process of its own. The sides alternate, and each round begins with another
one, so that a drift of the machine's speed does not favour any; ratios are taken within a round.
Prints the table and writes `benchmarks/results.json`. Needs the prepared arrays of MNIST.
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
from stages.common.params import Params, load_params
from stages.training.runtime import choose_threads, configure
from stages.training.session import processor

ROWS = (("cnn", "float32"), ("cnn", "bfloat16"), ("lstm", "float32"), ("hybrid", "float32"))
PEERS = Path("benchmarks/peers")
SIDES = ("ours", "keras", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare seconds per epoch, side by side.")
    parser.add_argument(
        "--torch", type=Path, help="a Python that has PyTorch; without it, no ratio"
    )
    parser.add_argument("--data", type=Path, default=PREPARED, help="folder of prepared arrays")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    arguments = parser.parse_args()
    sides = SIDES if arguments.torch else SIDES[:2]
    manifest = checked_data(arguments.data)
    params = load_params()
    needed = count_multiply_adds(manifest)
    bfloat16 = has_bfloat16()

    rates: list[float] = []
    seconds: dict[tuple[str, str], list[dict[str, float]]] = {}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    for number in range(arguments.rounds):
        rates.append(measure([sys.executable, "benchmarks/matmul.py"])["gflops"])
        for row in ROWS:
            if row[1] == "bfloat16" and not bfloat16:
                continue
            turn = number % len(sides)
            taken = {}
            for side in sides[turn:] + sides[:turn]:
                answer = measure(command(side, *row, arguments, params))
                taken[side] = answer["epochs"][-1]["seconds"]
                facts.setdefault(row, {})[side] = answer
            if facts[row]["ours"]["parameters"] != facts[row]["keras"]["parameters"]:
                raise StageError(f"params.yaml has another {row[0]} than {PEERS}/keras_script.py")
            seconds.setdefault(row, []).append(taken)
            print(
                f"round {number + 1}/{arguments.rounds} {' '.join(row)}: {said(taken)}", flush=True
            )
    gflops = statistics.median(rates)
    rows = [
        summary(row, taken, facts[row], needed[row[0]], manifest, gflops)
        for row, taken in seconds.items()
    ]
    result = {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "dataset": manifest["dataset"],
        "batch_size": params.train.batch_size,
        "rounds": arguments.rounds,
        "matmul_gflops": round(gflops, 1),
        "matmul_gflops_range": [round(min(rates), 1), round(max(rates), 1)],
        "rows": rows,
    }
    write_json(arguments.output, result)
    print(table(result))


def checked_data(folder: Path) -> dict[str, Any]:
    """Return the manifest of the prepared arrays in `folder`.

    Raises
    ------
    StageError
        Their images are not what the peers' layers are for; or the pipeline has prepared another
        data set than MNIST, as `make run` does, whose figures nobody wants in the record.
    """
    manifest = read_manifest(folder)
    if manifest["image_shape"] != [28, 28, 1]:
        raise StageError(f"{folder}: the peers' layers are for images of 28×28×1")
    if folder == PREPARED and manifest["dataset"] != "mnist":
        raise StageError(
            f"{folder} has {manifest['dataset']}, the benchmarks are of mnist: "
            "`git checkout params.yaml dvc.lock metrics plots`, or name arrays with --data"
        )
    return manifest


def command(
    side: str, model: str, precision: str, arguments: argparse.Namespace, params: Params
) -> list[str]:
    """Return the command that measures one side; the peers' batch and dropout are ours."""
    start = {
        "ours": [sys.executable, "-m", "benchmarks.ours"],
        "keras": [sys.executable, str(PEERS / "keras_script.py")],
        "torch": [str(arguments.torch), str(PEERS / "torch_script.py")],
    }[side]
    options = ["--precision", precision, "--fraction", str(arguments.fraction)]
    if side != "ours":
        options += ["--batch", str(params.train.batch_size)]
        options += ["--dropout", str(getattr(params, model).dropout)]
    return [*start, model, str(arguments.data), *options]


def measure(words: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """Run a command, here or in `folder`, and return the JSON object that it prints last."""
    done = subprocess.run(  # noqa: S603 -- our own scripts
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise StageError(f"{' '.join(words)} failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def count_multiply_adds(manifest: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return, by model, the multiply-adds of an image in training and in inference."""
    params = load_params()
    configure(choose_threads(0, params.train.batch_size, batch_norm=True), seed=1)
    from benchmarks.multiply_adds import inference, training
    from stages.models import build

    shape, classes = manifest["image_shape"], len(manifest["class_names"])
    models = {name: build(name, shape, classes, params.models[name]) for name, _ in ROWS}
    return {
        name: {"training": training(model), "inference": inference(model)}
        for name, model in models.items()
    }


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; without it the row means nothing."""
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
    """Return one row of the results: medians, the ratios' medians and ranges, and each round."""
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
        found[f"ratio_{side}"] = round(statistics.median(ratios), 2) if ratios else None
        found[f"ratio_{side}_range"] = (
            [round(min(ratios), 2), round(max(ratios), 2)] if ratios else None
        )
    found["share_of_matmul"] = round(flops / median["ours"] / 1e9 / gflops, 3)
    found["gflop_per_epoch"] = round(flops / 1e9, 1)
    found["parameters"] = {side: facts[side]["parameters"] for side in facts}
    found["threads"] = facts["ours"]["threads"]
    found["rounds"] = [{side: round(value, 2) for side, value in taken.items()} for taken in rounds]
    return found


def said(taken: Mapping[str, float]) -> str:
    return ", ".join(f"{side} {seconds:.1f} s" for side, seconds in taken.items())


def table(result: Mapping[str, Any]) -> str:
    """Return the results as a Markdown table, which is what README.md quotes."""
    head = (
        "| model | precision | ours, s | plain Keras, s | PyTorch, s "
        "| Keras / ours | PyTorch / ours | share of the product's rate |"
    )
    rows = [
        f"| {row['model']} | {row['precision']} | {row['ours_seconds']:.1f} | "
        f"{number(row['keras_seconds'])} | {number(row['torch_seconds'])} | "
        f"{ratio(row, 'keras')} | {ratio(row, 'torch')} | {row['share_of_matmul']:.2f} |"
        for row in result["rows"]
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows])


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def ratio(row: Mapping[str, Any], side: str) -> str:
    if row[f"ratio_{side}"] is None:
        return "–"
    low, high = row[f"ratio_{side}_range"]
    return f"{row[f'ratio_{side}']:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    run(main)
