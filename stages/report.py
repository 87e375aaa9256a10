"""Stage `report`: write one HTML page about the run.

    python -m stages.report

Reads metrics, timings, plot CSVs, predictions and a few test images. Never imports TensorFlow.
Writes `plots/report.html` (the page), `plots/report.md` (a short version for the terminal and for
pull requests), `plots/figures/` (PNGs) and `metrics/results.csv`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from stages.common.arrays import PREPARED, read_array, read_manifest, read_split
from stages.common.cli import run_stage
from stages.common.files import read_csv, read_json, write_csv, write_text
from stages.common.overrides import exp_run_command
from stages.common.params import ENSEMBLE, load_params
from stages.reporting.figures import look
from stages.reporting.page import (
    best,
    by_model,
    class_ranking,
    confident_mistakes,
    contact_sheet,
    draw,
    example,
    learning,
)
from stages.reporting.sentences import listing, verdict
from stages.reporting.table import REPORT, RESULTS, TIMING, collect, summary_table
from stages.reporting.targets import against_study, published, study_of
from stages.reporting.templating import TEMPLATES, render

MARKDOWN = Path("plots/report.md")
EXAMPLES = range(4, 8)  # test images that every report shows


def main() -> None:
    params, manifest = load_params(), read_manifest()
    tested = {name: row["test"] for name, row in read_json(Path("metrics/test.json")).items()}
    details = read_json(Path("data/predictions/details.json"))
    rows = collect(details["models"])
    dataset, class_names = manifest["dataset"], manifest["class_names"]
    names = list(tested)
    scored = {
        row["model"]: {"accuracy": row["test_accuracy"], "errors": row["errors"]} for row in rows
    }
    models = [name for name in names if name != ENSEMBLE]
    test = read_split("test")
    predictions = {name: read_array(Path(f"data/predictions/{name}.npy")) for name in names}
    histories = {name: read_csv(Path(f"plots/history/{name}.csv")) for name in models}
    scores, bins = (by_model(Path(f"plots/{table}.csv")) for table in ("per_class", "calibration"))
    timing = {name: read_json(TIMING / f"{name}.json") for name in models}
    seeds = {
        name: against_study(name, tested[name]["accuracy"], len(test.y), cell)
        for name in models
        if (cell := study_of(name, params.model_dump(), timing[name]["versions"]))
    }
    published_entries = published(dataset, [row["epochs"] for row in rows])
    facts = {
        "title": f"{listing(models, article='')} on {dataset}",
        "params": params,
        "params_text": yaml.safe_dump(params.model_dump(), sort_keys=False),
        "command": exp_run_command(params.model_dump()),
        "manifest": manifest,
        "rows": rows,
        "best": best(rows),
        "published": published_entries,
        "seeds": list(seeds.values()),
        "verdict": verdict(scored, details["comparisons"], len(test.y)),
        "tested": tested,
        "details": details["models"],
        "comparisons": details["comparisons"],
        "learning": {name: learning(history) for name, history in histories.items()},
        "classes": class_ranking(scores, models, class_names),
        "timing": timing,
        "inference": read_json(TIMING / "inference.json")["seconds_per_image"],
        "colours": {name: look(name, names)["color"] for name in names},
        "figures": draw(rows, histories, scores, bins, predictions, test.y, class_names),
        "table": summary_table(rows, published_entries),
        "sheet": contact_sheet(read_array(PREPARED / "contact_sheet.npy"), class_names),
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
    print(*facts["verdict"], *facts["seeds"], sep="\n")
    print(f"wrote {REPORT}, {MARKDOWN} and {RESULTS}")


if __name__ == "__main__":
    run_stage(main)
