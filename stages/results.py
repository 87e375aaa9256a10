"""The result table: a row a model, as data and as text.

python -m stages.results        prints the table of the last run
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.expected import missed
from stages.files import read_csv, read_json, run
from stages.params import ENSEMBLE

RESULTS = Path("metrics/results.csv")
REPORT = Path("plots/report.html")
SUMMED = ("parameters", "train_seconds", "seconds_per_epoch")  # what the ensemble costs


def collect() -> list[dict[str, Any]]:
    """Return the figures of every model, and of the ensemble, that the metrics files hold.

    The ensemble's costs are the sums of its models' costs; what it has none of is "".
    """
    rows: list[dict[str, Any]] = []
    for name, tested in read_json(Path("metrics/evaluation.json")).items():
        rows.append({
            "model": name,
            **(sums(rows) if name == ENSEMBLE else training(name)),
            "test_accuracy": tested["accuracy"],
            "test_loss": tested["loss"],
            "macro_f1": tested["macro_f1"],
            "errors": tested["errors"],
        })  # fmt: skip
    return rows


def training(name: str) -> dict[str, Any]:
    """Return what the training of one model came to, and what it cost."""
    train = read_json(Path(f"metrics/train/{name}.json"))
    timing = read_json(Path(f"metrics/timing/{name}.json"))
    return {
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


def sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ensemble's part of the table from its models' rows."""
    epochs = {row["epochs"] for row in rows}
    columns = list(rows[0])[1 : list(rows[0]).index("test_accuracy")]
    row: dict[str, Any] = dict.fromkeys(columns, "")
    row |= {column: round(sum(model[column] for model in rows), 3) for column in SUMMED}
    return row | {"epochs": epochs.pop() if len(epochs) == 1 else ""}


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the columns that a person compares first."""
    header = ("model", "parameters", "epochs", "train", "val", "test", "errors", "s/epoch")
    table = [header]
    for row in rows:
        accuracies = [row[f"{part}_accuracy"] for part in ("train", "val", "test")]
        table.append((
            row["model"],
            f"{int(row['parameters']):,}",
            str(row["epochs"]),
            *(f"{float(value):.2%}" if value != "" else "" for value in accuracies),
            str(row["errors"]),
            f"{float(row['seconds_per_epoch']):.1f}",
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in table
    ]  # fmt: skip
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main() -> None:
    rows = read_csv(RESULTS)
    manifest = read_json(Path("data/prepared/manifest.json"))
    images = manifest["splits"]["test"]["images"]
    print(f"\n{manifest['dataset']}: accuracy in training, validation and test ({images} images)\n")
    print(as_table(rows))
    for sentence in missed(manifest["dataset"], rows):
        print(f"\n!!! BELOW THE FLOOR  {sentence}")
    print(f"\nreport: {REPORT.resolve()}")


if __name__ == "__main__":
    run(main)
