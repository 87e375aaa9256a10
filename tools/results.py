"""Print the result table of the last run.

python -m tools.results
"""

from __future__ import annotations

import pandas as pd

from stages.common.arrays import read_manifest
from stages.common.cli import run
from stages.common.files import read_csv
from stages.reporting.sentences import percent
from stages.reporting.table import REPORT, RESULTS
from stages.reporting.targets import missed

COLUMNS = {  # of results.csv: heading and format
    "model": ("model", str),
    "parameters": ("parameters", "{:,.0f}".format),
    "epochs": ("epochs", "{:.0f}".format),
    "train_accuracy": ("train", percent),
    "val_accuracy": ("val", percent),
    "test_accuracy": ("test", percent),
    "errors": ("errors", "{:,.0f}".format),
    "seconds_per_epoch": ("s/epoch", "{:.1f}".format),
}


def main() -> None:
    rows = read_csv(RESULTS)
    manifest = read_manifest()
    images = manifest["splits"]["test"]["images"]
    print(f"\n{manifest['dataset']}, accuracy on training, validation and {images:,} test images\n")
    print(as_table(rows))
    for sentence in missed(manifest["dataset"], rows):
        print(f"\nbelow target: {sentence}")
    print(f"\nreport: {REPORT.resolve()}")


def as_table(rows: list[dict[str, str]]) -> str:
    """Return the columns that people compare first as a text table."""
    table = pd.DataFrame({
        heading: [
            text if column == "model" or not text else form(float(text))
            for text in (row[column] for row in rows)
        ]
        for column, (heading, form) in COLUMNS.items()
    })  # fmt: skip
    return table.to_string(index=False)


if __name__ == "__main__":
    run(main)
