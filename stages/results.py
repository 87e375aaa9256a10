"""The result table: a row a model, as data and as text.

python -m stages.results        prints the table of the last run
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from stages.files import StageError, read_json, run
from stages.params import MODELS

RESULTS = Path("metrics/results.csv")
REPORT = Path("plots/report.html")


def collect() -> list[dict[str, Any]]:
    """Return the figures of every model, and of the ensemble, that the metrics files hold."""
    evaluation = read_json(Path("metrics/evaluation.json"))
    rows = []
    for name in evaluation:
        row: dict[str, Any] = {"model": name}
        if name in MODELS:
            train = read_json(Path(f"metrics/train/{name}.json"))
            timing = read_json(Path(f"metrics/timing/{name}.json"))
            row |= {
                "parameters": train["parameters"],
                "epochs": train["epochs"],
                "train_accuracy": train["train"]["accuracy"],
                "train_loss": train["train"]["loss"],
                "val_accuracy": train["val"]["accuracy"],
                "val_loss": train["val"]["loss"],
                "train_seconds": timing["train_seconds"],
                "seconds_per_epoch": timing["seconds_per_epoch"],
                "images_per_second": timing["examples_per_second"],
            }
        tested = evaluation[name]
        row |= {
            "test_accuracy": tested["accuracy"],
            "test_loss": tested["loss"],
            "macro_f1": tested["macro_f1"],
            "errors": tested["errors"],
        }
        rows.append(row)
    columns = list(rows[0])
    return [{column: row.get(column, "") for column in columns} for row in rows]


def as_table(rows: list[dict[str, Any]]) -> str:
    """Lay out the columns that a person compares first."""
    header = ("model", "parameters", "epochs", "train", "val", "test", "errors", "s/epoch")
    table = [header]
    for row in rows:
        accuracies = [row[f"{part}_accuracy"] for part in ("train", "val", "test")]
        table.append((
            row["model"],
            f"{int(row['parameters']):,}" if row["parameters"] else "",
            str(row["epochs"]),
            *(f"{float(value):.2%}" if value != "" else "" for value in accuracies),
            str(row["errors"]),
            f"{float(row['seconds_per_epoch']):.1f}" if row["seconds_per_epoch"] else "",
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in table
    ]  # fmt: skip
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main() -> None:
    try:
        with RESULTS.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise StageError(f"{RESULTS} is missing; `dvc repro` makes it") from None
    manifest = read_json(Path("data/prepared/manifest.json"))
    images = manifest["splits"]["test"]["images"]
    print(f"\n{manifest['dataset']}: accuracy in training, validation and test ({images} images)\n")
    print(as_table(rows))
    print(f"\nreport: {REPORT.resolve()}")


if __name__ == "__main__":
    run(main)
