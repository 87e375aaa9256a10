"""Stage `report`: write one HTML page about the run.

    python -m stages.report

Reads metrics, timings, plot CSVs, predictions and a few test images. Never imports TensorFlow.
Writes `plots/report.html` (the page), `plots/report.md` (a short version for the terminal and for
pull requests), `plots/MODEL_CARD.md` (purpose, results and limits of the models), `plots/figures/`
(PNGs) and `metrics/results.csv`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from stages.common.files import write_csv, write_text
from stages.common.overrides import exp_run_command
from stages.common.params import load_params
from stages.common.watched import run_stage
from stages.reporting.facts import drawings, headline, images, inside, read_results, references
from stages.reporting.page import draw
from stages.reporting.table import REPORT, RESULTS
from stages.reporting.templating import TEMPLATES, render

MARKDOWN = Path("plots/report.md")
MODEL_CARD = Path("plots/MODEL_CARD.md")


def main() -> None:
    params, results = load_params(), read_results()
    facts = {
        "params": params,
        "params_text": yaml.safe_dump(params.model_dump(), sort_keys=False),
        "command": exp_run_command(params.model_dump()),
        **headline(results),
        **references(results, params),
        **inside(results),
    }
    explained = [each["index"] for one in facts["explanations"].values() for each in one["images"]]
    facts |= images(results, explained)
    facts["figures"] = draw(drawings(results, facts), facts["title"])
    write_csv(RESULTS, results.rows)
    write_text(REPORT, render(TEMPLATES / "report.html.jinja", facts))
    write_text(MARKDOWN, render(TEMPLATES / "report.md.jinja", facts))
    write_text(MODEL_CARD, render(TEMPLATES / "model_card.md.jinja", facts))
    print(facts["verdict"], *facts["seeds"], sep="\n")
    print(f"wrote {REPORT}, {MARKDOWN}, {MODEL_CARD} and {RESULTS}")


if __name__ == "__main__":
    run_stage(main)
