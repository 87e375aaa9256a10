"""A tree of made-up metrics, plots and predictions, as the earlier stages leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stages.evaluate import save_array, write_plots
from stages.files import write_csv, write_json
from stages.params import ENSEMBLE
from stages.statistics import compare_all, details, summary

ROOT = Path(__file__).parents[1]
THREADS = {"intra_op": 2, "inter_op": 2, "batch_parts": 1}


def build_tree(folder: Path, models, class_names, epochs: int, n: int = 400, wrong: float = 0.1):
    """Write what `report` reads into `folder`, which must be the working directory."""
    random = np.random.default_rng(3)
    classes = len(class_names)
    y = np.arange(n, dtype=np.int32) % classes
    x = random.integers(0, 256, (n, 12, 9, 1), dtype=np.uint8)
    prepared = folder / "data/prepared"
    prepared.mkdir(parents=True)
    np.save(prepared / "x_test.npy", x)
    np.save(prepared / "y_test.npy", y)
    counts = {"images": n, "per_class": np.bincount(y).tolist(), "x_sha256": "a", "y_sha256": "b"}
    manifest = {"dataset": "mnist", "image_shape": [12, 9, 1], "class_names": list(class_names)}
    write_json(
        prepared / "manifest.json",
        manifest | {"splits": dict.fromkeys(("train", "val", "test"), counts)},
    )
    probabilities = {}
    for place, name in enumerate(models):
        logits = random.normal(0, 1, (n, classes))
        hit = random.random(n) >= wrong * (place + 1) if wrong else np.ones(n, dtype=bool)
        logits[np.arange(n), np.where(hit, y, (y + 1) % classes)] += random.uniform(
            1, 9, n
        )  # unsure of some
        shares = np.exp(logits)
        probabilities[name] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
        history = made_up_history(place, epochs, random)
        write_csv(folder / f"plots/history/{name}.csv", history)
        last = history[-1]
        scores = {
            part: {"accuracy": last[f"{prefix}accuracy"], "loss": last[f"{prefix}loss"]}
            for part, prefix in (("train", ""), ("val", "val_"))
        }
        write_json(
            folder / f"metrics/train/{name}.json",
            {**scores, "epochs": epochs, "parameters": 1000 + place},
        )
        write_json(
            folder / f"metrics/timing/{name}.json",
            {"train_seconds": 10.0 + place, "seconds_per_epoch": 1.0, "examples_per_second": 9999.0,
             "peak_memory_bytes": 10**9, "threads": THREADS, "versions": {"python": "3"},
             "processor": "<made up>", "finished": "2026-01-01"},
        )  # fmt: skip
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)
    for name, predicted in probabilities.items():
        save_array(folder / f"data/predictions/{name}.npy", predicted)
        write_plots(name, y, predicted, list(class_names))
    right = {name: p.argmax(1) == y for name, p in probabilities.items()}
    write_json(
        folder / "data/predictions/details.json",
        {"models": {k: details(y, p, class_names) for k, p in probabilities.items()},
         "comparisons": compare_all(right, ENSEMBLE)},
    )  # fmt: skip
    write_json(
        folder / "metrics/evaluation.json", {k: summary(y, p) for k, p in probabilities.items()}
    )
    per_image = {name: {"batch_1": 0.001, "batch_256": 0.0001} for name in probabilities}
    write_json(folder / "metrics/timing/inference.json", {"seconds_per_image": per_image})
    for name in ("params.yaml", "studies/floors.yaml", "studies/published.yaml"):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return json.loads((folder / "metrics/evaluation.json").read_text())


def made_up_history(place: int, epochs: int, random: np.random.Generator) -> list[dict]:
    """Return curves that no other model's cover: later models learn more slowly, and less."""
    rows = []
    for epoch in range(1, epochs + 1):
        left = np.exp(-epoch / (2 + 1.5 * place)) + 0.01 * random.random()
        accuracy, loss = 0.99 - 0.02 * place - 0.6 * left, 0.02 * (1 + place) + 1.5 * left
        rows.append({
            "epoch": epoch, "accuracy": accuracy, "val_accuracy": accuracy - 0.01 * (1 + place),
            "loss": loss, "val_loss": 1.3 * loss, "learning_rate": 0.003 / (1 + place) / epoch,
        })  # fmt: skip
    return rows
