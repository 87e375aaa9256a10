"""Stage `report`: write one HTML page about the run.

    python -m stages.report

Reads metrics, plot CSVs, predictions and a few test images. Never imports TensorFlow. Writes
`plots/report.html` (the page), `plots/report.md` (a short version for a pull request),
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
from stages.reporting.figures import look
from stages.reporting.page import best, class_ranking, confident_mistakes, draw, example, learning
from stages.reporting.sentences import listing, verdict
from stages.reporting.table import REPORT, RESULTS, collect
from stages.reporting.targets import missed, published
from stages.reporting.templating import TEMPLATES, render

MARKDOWN = Path("plots/report.md")
EXAMPLES = range(4, 8)  # test images that every report shows


def main() -> None:
    params, manifest, rows = load_params(), read_manifest(), collect()
    dataset, class_names = manifest["dataset"], manifest["class_names"]
    names = [row["model"] for row in rows]
    models = [name for name in names if name != ENSEMBLE]
    test = read_split("test")
    predictions = {name: read_array(Path(f"data/predictions/{name}.npy")) for name in names}
    evaluation = read_json(Path("metrics/evaluation.json"))
    details = read_json(Path("data/predictions/details.json"))
    histories = {name: read_csv(Path(f"plots/history/{name}.csv")) for name in models}
    scores = {name: read_csv(Path(f"plots/per_class/{name}.csv")) for name in names}
    below = missed(dataset, rows)
    facts = {
        "title": f"{listing(models, article='')} on {dataset}",
        "params": params,
        "params_text": yaml.safe_dump(params.model_dump(), sort_keys=False),
        "command": exp_run_command(params.model_dump()),
        "manifest": manifest,
        "rows": rows,
        "best": best(rows),
        "published": published(dataset, [row["epochs"] for row in rows]),
        "missed": below,
        "verdict": verdict(evaluation, details["comparisons"], len(test.y)),
        "evaluation": evaluation,
        "details": details["models"],
        "comparisons": details["comparisons"],
        "learning": {name: learning(history) for name, history in histories.items()},
        "classes": class_ranking(scores, models, class_names),
        "timing": {name: read_json(Path(f"metrics/timing/{name}.json")) for name in models},
        "inference": read_json(Path("metrics/timing/inference.json"))["seconds_per_image"],
        "colours": {name: look(name, names)["color"] for name in names},
        "figures": draw(
            rows, details["models"], histories, scores, predictions, test.y, class_names
        ),
        "examples": [
            example(i, test.x, test.y, predictions, class_names)
            for i in EXAMPLES
            if i < len(test.y)
        ],
        "mistakes": {
            name: [
                example(i, test.x, test.y, {name: predicted}, class_names)
                for i in confident_mistakes(predicted, test.y)
            ]
            for name, predicted in predictions.items()
        },
    }
    write_csv(RESULTS, rows)
    write_text(REPORT, render(TEMPLATES / "report.html.jinja", facts))
    write_text(MARKDOWN, render(TEMPLATES / "report.md.jinja", facts))
    for text in below:
        print(f"below target: {text}")
    print(f"wrote {REPORT}, {MARKDOWN} and {RESULTS}")


if __name__ == "__main__":
    run(main)
