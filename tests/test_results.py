"""The table for spreadsheets, and the one that a person reads."""

from __future__ import annotations

import csv
import json

from stages.params import MODELS


def test_the_table_repeats_the_metrics(pipeline):
    rows = {
        r["model"]: r for r in csv.DictReader(pipeline.read("metrics/results.csv").splitlines())
    }
    assert set(MODELS) <= set(rows)
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    for name in MODELS:
        train = json.loads(pipeline.read(f"metrics/train/{name}.json"))
        assert int(rows[name]["parameters"]) == train["parameters"]
        assert int(rows[name]["epochs"]) == train["epochs"]
        assert float(rows[name]["test_accuracy"]) == evaluation[name]["accuracy"]
        assert float(rows[name]["val_loss"]) == train["val"]["loss"]


def test_the_printed_table_shows_every_model_and_where_the_report_is(pipeline):
    printed = pipeline.stage("results").stdout
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    for name in MODELS:
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert f"{evaluation[name]['accuracy']:.2%}" in line
    assert str(pipeline.path("plots/report.html").resolve()) in printed


def test_without_results_it_says_how_to_get_them(project):
    done = project.stage("results", status=1)
    assert done.stderr == "error: metrics/results.csv is missing; `dvc repro` makes it\n"
