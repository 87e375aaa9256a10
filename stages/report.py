"""Stage `report`: one HTML page about the run.

    python -m stages.report

Reads metrics, plot CSVs, predictions and a few test images. Never imports TensorFlow. Writes
`plots/report.html` (the page), `plots/report.md` (its short form for a pull request),
`plots/figures/` (PNGs), `plots/readme/` (two small PNGs that git keeps) and `metrics/results.csv`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from stages.common.arrays import read_array, read_manifest, read_split
from stages.common.cli import run
from stages.common.files import read_csv, read_json, write_csv, write_text
from stages.common.overrides import exp_run_command
from stages.common.params import ENSEMBLE, load_params
from stages.reporting import figures
from stages.reporting.page import (
    best,
    class_ranking,
    confident_mistakes,
    draw,
    example,
    learning,
)
from stages.reporting.sentences import verdict
from stages.reporting.table import REPORT, RESULTS, collect
from stages.reporting.targets import missed, published
from stages.reporting.templating import TEMPLATES, render

MARKDOWN = Path("plots/report.md")
FIRST_SHOWN, SHOWN = 4, 4  # every report shows four test images, from index 4


def main() -> None:
    params = load_params()
    rows = collect()
    manifest = read_manifest()
    names = [row["model"] for row in rows]
    test = read_split("test")
    x_test, y_test = test.x, test.y
    predictions = {name: read_array(Path(f"data/predictions/{name}.npy")) for name in names}
    evaluation = read_json(Path("metrics/evaluation.json"))
    details = read_json(Path("data/predictions/details.json"))
    models = [name for name in names if name != ENSEMBLE]
    histories = {name: read_csv(Path(f"plots/history/{name}.csv")) for name in models}
    scores = {name: read_csv(Path(f"plots/per_class/{name}.csv")) for name in names}
    facts = {
        "params": params,
        "params_text": yaml.safe_dump(params.model_dump(), sort_keys=False),
        "command": exp_run_command(params.model_dump()),
        "manifest": manifest,
        "rows": rows,
        "best": best(rows),
        "published": published(manifest["dataset"], [row["epochs"] for row in rows]),
        "missed": missed(manifest["dataset"], rows),
        "verdict": verdict(evaluation, details["comparisons"], len(y_test)),
        "evaluation": evaluation,
        "details": details["models"],
        "comparisons": details["comparisons"],
        "learning": {name: learning(history) for name, history in histories.items()},
        "classes": class_ranking(scores, models, manifest["class_names"]),
        "timing": {name: read_json(Path(f"metrics/timing/{name}.json")) for name in models},
        "inference": read_json(Path("metrics/timing/inference.json"))["seconds_per_image"],
        "colours": {name: figures.look(name, names)["color"] for name in names},
        "figures": draw(rows, details["models"], histories, scores, predictions, y_test, manifest),
        "examples": [
            example(i, x_test, y_test, predictions, manifest["class_names"])
            for i in range(FIRST_SHOWN, min(FIRST_SHOWN + SHOWN, len(y_test)))
        ],
        "mistakes": {
            name: [
                example(i, x_test, y_test, {name: predictions[name]}, manifest["class_names"])
                for i in confident_mistakes(predictions[name], y_test)
            ]
            for name in names
        },
    }
    write_csv(RESULTS, rows)
    write_text(REPORT, render(TEMPLATES / "report.html.jinja", facts))
    write_text(MARKDOWN, render(TEMPLATES / "report.md.jinja", facts))
    for text in facts["missed"]:
        print(f"below target: {text}")
    print(f"wrote {REPORT}, {MARKDOWN} and {RESULTS}")


if __name__ == "__main__":
    run(main)
