"""Stages `train_cnn`, `train_lstm`, `train_hybrid`: train one model on the prepared data.

    python -m stages.train cnn

Reads `epochs`, `seed`, `train.*` and the model's own section; writes `data/models/MODEL.keras`,
`plots/history/MODEL.csv` (as it goes), `metrics/train/MODEL.json` and `metrics/timing/MODEL.json`.
A training that was interrupted goes on after its last whole epoch (checkpoints.py), to the same
bytes. The test set is not opened here.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from stages.backend import Threads, choose_threads, configure
from stages.checkpoints import FOLDER, Checkpoint, Progress
from stages.files import run, write_csv, write_json
from stages.params import MODELS, Convolutional, Model, Train, load_params
from stages.prepared import read_manifest, read_split

HISTORY_COLUMNS = ("epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train one model on the prepared data.")
    parser.add_argument("model", choices=MODELS)
    name = parser.parse_args().model

    params = load_params()
    section = getattr(params, name)
    manifest = read_manifest()
    threads = threads_for(params.train, section, manifest["splits"]["train"]["images"])
    configure(threads, params.seed, params.train.precision)
    from stages.archive import save_model
    from stages.models import build
    from stages.training import Arrays, fit, score

    train_data, val_data = Arrays(*read_split("train")), Arrays(*read_split("val"))
    model = build(name, manifest["image_shape"], len(manifest["class_names"]), section)
    print(
        f"{name}: {model.count_params():,} parameters, {len(train_data.y):,} training and "
        f"{len(val_data.y):,} validation images, {params.epochs} epochs",
        flush=True,
    )
    checkpoint = Checkpoint(
        name,
        {
            "data": [manifest["splits"][part] for part in ("train", "val")],
            "epochs": params.epochs,
            "seed": params.seed,
            "train": params.train.model_dump(),
            "section": section.model_dump(),
            "machine": machine(threads),
        },
    )
    done = checkpoint.load()
    history = go_on(name, done, params.epochs) if done else []
    for row in fit(
        model,
        train_data,
        val_data,
        epochs=params.epochs,
        seed=params.seed,
        train=params.train,
        section=section,
        batch_parts=threads.batch_parts,
        progress=done,
        keep=checkpoint.save,
    ):
        history.append(row)
        write_history(name, history)
        print(progress(name, history, params.epochs), flush=True)

    save_model(model, Path(f"data/models/{name}.keras"))
    final_train, final_val = (
        score(model, data, workers=threads.inter_op) for data in (train_data, val_data)
    )
    best = max(history, key=lambda past: past["val_accuracy"])
    write_json(
        Path(f"metrics/train/{name}.json"),
        {
            "train": final_train,
            "val": final_val,
            "gap": final_train["accuracy"] - final_val["accuracy"],
            "best": {"epoch": best["epoch"], "val_accuracy": best["val_accuracy"]},
            "epochs": len(history),
            "parameters": model.count_params(),
        },
    )
    resumed = done.resumed if done else 0
    write_json(
        Path(f"metrics/timing/{name}.json"), timing(history, len(train_data.y), threads, resumed)
    )
    # All is on the disk: a later `dvc repro --force` must train, not find a finished training.
    checkpoint.remove()


def threads_for(train: Train, section: Model, images: int) -> Threads:
    """Return the thread setting of a model's training on so many images.

    Batches go through the model whole where the last one has too few images to give each part
    one: an empty part has no mean to normalize by.
    """
    batch_norm = isinstance(section, Convolutional) and section.batch_norm
    threads = choose_threads(train.threads, train.batch_size, batch_norm)
    last = images % train.batch_size or train.batch_size
    return threads if last >= threads.batch_parts else replace(threads, batch_parts=1)


def go_on(name: str, done: Progress, epochs: int) -> list[dict[str, float]]:
    """Say where an interrupted training goes on; return its history."""
    done.resumed += 1
    write_history(name, done.rows)
    print(f"{name}: continuing after epoch {len(done.rows)} of {epochs}, from {FOLDER}", flush=True)
    return list(done.rows)


def write_history(name: str, history: list[dict[str, float]]) -> None:
    """Write the learning curves so far, a row an epoch."""
    write_csv(
        Path(f"plots/history/{name}.csv"),
        [{column: past[column] for column in HISTORY_COLUMNS} for past in history],
    )


def progress(name: str, history: list[dict[str, float]], epochs: int) -> str:
    """Say where a training stands, in one line that reads well in a log too."""
    row = history[-1]
    left = (epochs - row["epoch"]) * statistics.median(past["seconds"] for past in history)
    return (
        f"{name:6} epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
        f"  accuracy {row['accuracy']:.4f}  validation {row['val_accuracy']:.4f}"
        f"  loss {row['loss']:.4f} / {row['val_loss']:.4f}"
        f"  rate {row['learning_rate']:.1e}  {row['seconds']:.1f} s, {left:.0f} s left"
    )


def timing(
    history: list[dict[str, float]], examples: int, threads: Threads, resumed: int = 0
) -> dict:
    """Return what the training cost, and on what; `seconds_per_epoch` is the median epoch's.

    `train_seconds` is the wall time of all epochs: the first one's graph building and every
    epoch's validation included, import of the libraries not. `peak_memory_bytes` is the
    process's largest resident set. A training that was interrupted and `resumed` so many times
    counts each epoch once, as the process that ended it measured it.
    """
    seconds = [row["seconds"] for row in history]
    per_epoch = statistics.median(seconds)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    return {
        "train_seconds": round(sum(seconds), 3),
        "seconds_per_epoch": round(per_epoch, 3),
        "examples_per_second": round(examples / per_epoch, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "resumed": resumed,
        **machine(threads),
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def machine(threads: Threads) -> dict:
    """Return what else than data, code and parameters decides a training's bytes."""
    return {
        "threads": threads.as_dict(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("keras", "tensorflow", "numpy")},
        },
        "processor": processor(),
    }


def processor() -> str:
    """Return the processor's name as the system tells it, with its model: clouds share names."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
        return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()  # not Linux, or not x86


if __name__ == "__main__":
    run(main)
