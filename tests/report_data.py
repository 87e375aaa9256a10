"""Invented metrics, plots and predictions, as the stages before `report` leave them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import ROOT

from stages.common.arrays import write_array
from stages.common.files import write_csv, write_json
from stages.common.params import ENSEMBLE
from stages.evaluation.outputs import write_scores

VERSIONS = dict.fromkeys(("python", "keras", "tensorflow", "numpy"), "0")
MESSAGES = [
    "warning: 3 of 400 test images are also in the training set; the test accuracy is too high",
    "2 images have one value everywhere",
]
THREADS = {"intra_op": 2, "inter_op": 2, "batch_parts": 1}


def build_tree(
    models: Sequence[str],
    class_names: Sequence[str],
    epochs: int,
    n: int = 400,
    wrong: float = 0.1,
    shape: tuple[int, ...] = (12, 9, 1),
) -> None:
    """Write what `report` reads into the working directory.

    Each of the `n` test images is misclassified with probability `wrong` by the first model, and
    more often by the following ones.
    """
    random = np.random.default_rng(3)
    y = np.arange(n, dtype=np.int32) % len(class_names)
    write_array(Path("data/prepared/x_test.npy"), random.integers(0, 256, (n, *shape), np.uint8))
    write_array(Path("data/prepared/y_test.npy"), y)
    counts = {"images": n, "per_class": np.bincount(y).tolist(), "x_sha256": "a", "y_sha256": "b"}
    manifest = {"dataset": "mnist", "image_shape": list(shape), "class_names": list(class_names)}
    manifest |= {"notes": ["labels 1–10 became classes 0–9"], "checks": {"messages": MESSAGES}}
    sheet = random.integers(0, 256, (min(100, len(class_names)), 12, *shape), np.uint8)
    write_array(Path("data/prepared/contact_sheet.npy"), sheet)
    splits = dict.fromkeys(("train", "val", "test"), counts)
    write_json(Path("data/prepared/manifest.json"), manifest | {"splits": splits})
    probabilities = {}
    for i, name in enumerate(models):
        logits = random.normal(0, 1, (n, len(class_names)))
        right = random.random(n) >= wrong * (i + 1)
        guesses = np.where(right, y, (y + 1) % len(class_names))
        least = 1 if wrong else 6  # if it is 1, some images are close calls
        logits[np.arange(n), guesses] += random.uniform(least, 9, n)
        shares = np.exp(logits)
        probabilities[name] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        write_training(name, i, epochs, random)
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)
    corrupted = [
        {"model": name, "corruption": kind, "strength": strength,
         "accuracy": max(0.0, 0.97 - 0.03 * i - 0.02 * k * strength)}
        for k, kind in enumerate(("shift", "noise", "blur"))
        for strength in range(6)
        for i, name in enumerate(probabilities)
    ]  # fmt: skip
    write_scores(y, probabilities, list(class_names), corrupted)
    write_insides(models, shape, len(class_names), n)
    seconds = {name: {"batch_1": 0.001, "batch_256": 0.0001} for name in probabilities}
    write_json(
        Path("data/timing/inference.json"), {"seconds_per_image": seconds, "commit": "1234567"}
    )
    for name in ("params.yaml", "studies/published.yaml", "studies/targets.yaml",
                 "studies/results/comparison.json"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, name)


def write_insides(models: Sequence[str], shape: tuple[int, ...], classes: int, n: int) -> None:
    """Write layers and explanations: the second model is an LSTM, the others are convolutions."""
    architecture, explanations = {}, {}
    for i, name in enumerate(models):
        *time, height, width, _ = shape
        steps = [*time, height][0] if i == 1 else 0
        first = {
            "kind": "LSTM" if steps else "Conv2D", "kernel": [] if steps else [3, 3],
            "input": [*shape], "output": [7] if steps else [*time, height, width, 7],
            "parameters": 900 + i, "multiply_adds": 12345, "steps": steps,
            "step": "row" if steps else "", "bidirectional": False,
        }  # fmt: skip
        last = {"kind": "Dense", "input": [7], "output": [classes], "parameters": 100, "steps": 0,
                "multiply_adds": 655, "step": "", "bidirectional": False, "kernel": []}  # fmt: skip
        architecture[name] = [first, last]
        grid = np.full((steps or 9, classes if steps else 9), 0.25)
        images = [1, 2, 0][: n - 1]
        explanations[name] = {
            "kind": "belief" if steps else "occlusion",
            "images": images,
            "values": [grid.tolist()] * len(images),
        }
    write_json(Path("data/predictions/architecture.json"), architecture)
    write_json(Path("data/predictions/explanations.json"), explanations)


def write_training(name: str, i: int, epochs: int, random: np.random.Generator) -> None:
    """Write a model's learning curves and metrics. Later models learn more slowly, and less."""
    history = []
    for epoch in range(1, epochs + 1):
        left = np.exp(-epoch / (2 + 1.5 * i)) + 0.01 * random.random()
        accuracy, loss = 0.99 - 0.02 * i - 0.6 * left, 0.02 * (1 + i) + 1.5 * left
        history.append({
            "epoch": epoch, "accuracy": accuracy, "val_accuracy": accuracy - 0.01 * (1 + i),
            "loss": loss, "val_loss": 1.3 * loss, "learning_rate": 0.003 / (1 + i) / epoch,
        })  # fmt: skip
    write_csv(Path(f"plots/history/{name}.csv"), history)
    last = history[-1]
    val = {"accuracy": last["val_accuracy"], "loss": last["val_loss"]}
    write_json(
        Path(f"metrics/{name}.json"),
        {name: {"val": val}},
    )
    write_json(
        Path(f"data/timing/{name}.json"),
        {"parameters": 1000 + i, "epochs": epochs, "train_accuracy": last["accuracy"],
         "train_seconds": 10.0 + i,
         "seconds_per_epoch": 1.0, "examples_per_second": 9999.0, "peak_memory_bytes": 10**9,
         "threads": THREADS, "versions": VERSIONS, "probe": "0", "processor": "<invented>",
         "finished": "2026-01-01"},
    )  # fmt: skip
