"""Stage `report`: one page that a person opens when a run has ended.

    python -m stages.report

Reads metrics, plot CSVs and the manifest, never TensorFlow; writes `plots/report.html` and
`metrics/results.csv`.
"""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader

from stages.files import read_json, run, write_csv, write_text
from stages.params import MODELS, load_params
from stages.results import REPORT, RESULTS, collect

TEMPLATES = Path(__file__).parent


def main() -> None:
    params = load_params()
    rows = collect()
    write_csv(RESULTS, rows)
    template = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.jinja")
    page = template.render(
        params=params.model_dump(),
        manifest=read_json(Path("data/prepared/manifest.json")),
        rows=rows,
        timing={name: read_json(Path(f"metrics/timing/{name}.json")) for name in MODELS},
        curves=learning_curves(),
    )
    write_text(REPORT, page)
    print(f"wrote {REPORT} and {RESULTS}")


def learning_curves() -> str:
    """Draw validation accuracy against epochs; return the picture as a base64 PNG."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in MODELS:
        with Path(f"plots/history/{name}.csv").open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
        axes.plot(
            [int(row["epoch"]) for row in history],
            [float(row["val_accuracy"]) for row in history],
            marker=".",
            label=name,
        )
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return base64.b64encode(picture.getvalue()).decode()


if __name__ == "__main__":
    run(main)
