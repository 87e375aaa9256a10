"""Stages `train_cnn`, `train_lstm`, `train_hybrid`: train one model on the prepared data.

    python -m stages.train cnn

Reads `epochs`, `seed`, `train.*` and the model's own section. Writes `data/models/MODEL.keras`,
`plots/history/MODEL.csv` (after each epoch), `metrics/MODEL.json` (what people compare) and
`data/timing/MODEL.json` (size, seconds, memory, versions, machine). An interrupted training
continues after its last complete epoch, with the same final bytes. Does not open the test set.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from stages.common.arrays import read_manifest, read_split
from stages.common.files import write_csv, write_json
from stages.common.params import load_params, model_names
from stages.common.watched import run_stage
from stages.training.session import Row, train_model

HISTORY_COLUMNS = ("epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate")


def main() -> Callable[[], None]:
    parser = argparse.ArgumentParser(description="Train one model on the prepared data.")
    parser.add_argument("model", choices=model_names())
    name = parser.parse_args().model

    params = load_params()
    manifest = read_manifest()
    train_data, val_data = read_split("train"), read_split("val")
    training = train_model(
        name,
        params,
        train_data,
        val_data,
        len(manifest["class_names"]),
        checkpoint_facts={"data": [manifest["splits"][part] for part in ("train", "val")]},
        on_epoch=partial(write_history, name),
        log=partial(print, flush=True),
    )
    from stages.models.shared.archive import save_model

    save_model(training.model, Path(f"data/models/{name}.keras"))
    write_json(Path(f"metrics/{name}.json"), {name: {"val": training.score(val_data)}})
    write_json(
        Path(f"data/timing/{name}.json"),
        {
            "parameters": training.model.count_params(),
            "epochs": len(training.history),
            "train_accuracy": training.score(train_data)["accuracy"],
            **training.timing(),
        },
    )
    return training.checkpoint.remove  # then `dvc repro --force` trains again


def write_history(name: str, history: Sequence[Row]) -> None:
    """Write the learning curves so far, one row per epoch."""
    write_csv(
        Path(f"plots/history/{name}.csv"),
        [{column: row[column] for column in HISTORY_COLUMNS} for row in history],
    )


if __name__ == "__main__":
    run_stage(main)
