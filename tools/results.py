"""Print the result table of the last run.

python -m tools.results
"""

from __future__ import annotations

import pandas as pd

from stages.common.arrays import read_manifest
from stages.common.cli import run
from stages.common.files import read_csv
from stages.reporting.table import REPORT, RESULTS
from stages.reporting.targets import missed

COLUMNS = {  # of results.csv: heading and format
    "model": ("model", "{}"),
    "parameters": ("parameters", "{:,.0f}"),
    "epochs": ("epochs", "{:.0f}"),
    "train_accuracy": ("train", "{:.2%}"),
    "val_accuracy": ("val", "{:.2%}"),
    "test_accuracy": ("test", "{:.2%}"),
    "errors": ("errors", "{:.0f}"),
    "seconds_per_epoch": ("s/epoch", "{:.1f}"),
}


def main() -> None:
    rows = read_csv(RESULTS)
    manifest = read_manifest()
    images = manifest["splits"]["test"]["images"]
    print(f"\n{manifest['dataset']}, accuracy on training, validation and {images} test images\n")
    print(as_table(rows))
    for sentence in missed(manifest["dataset"], rows):
        print(f"\nbelow target: {sentence}")
    print(f"\nreport: {REPORT.resolve()}")


def as_table(rows: list[dict[str, str]]) -> str:
    """Return the columns that people compare first as a text table."""
    table = pd.DataFrame({
        heading: [
            form.format(row[column] if column == "model" else float(row[column]))
            if row[column] != "" else ""
            for row in rows
        ]
        for column, (heading, form) in COLUMNS.items()
    })  # fmt: skip
    return table.to_string(index=False)


if __name__ == "__main__":
    run(main)
