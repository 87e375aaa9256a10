"""The result table, as CSV and as printed."""

from __future__ import annotations

import csv
import json

MODELS = ("cnn", "lstm", "hybrid")


def test_the_table_repeats_the_metrics(pipeline):
    lines = pipeline.read("metrics/results.csv").splitlines()
    rows = {row["model"]: row for row in csv.DictReader(lines)}
    assert list(rows) == [*MODELS, "ensemble"]
    evaluation = json.loads(pipeline.read("metrics/evaluation.json"))
    trained = {name: json.loads(pipeline.read(f"metrics/train/{name}.json")) for name in MODELS}
    for name, train in trained.items():
        assert int(rows[name]["parameters"]) == train["parameters"]
        assert int(rows[name]["epochs"]) == train["epochs"]
        assert float(rows[name]["test_accuracy"]) == evaluation[name]["accuracy"]
        assert float(rows[name]["val_loss"]) == train["val"]["loss"]
    total = sum(train["parameters"] for train in trained.values())
    assert int(rows["ensemble"]["parameters"]) == total


def test_the_printed_table_has_every_model_and_the_reports_path(pipeline):
    printed = pipeline.module("tools.results").stdout
    for name, figures in json.loads(pipeline.read("metrics/evaluation.json")).items():
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [name])
        assert f" {100 * figures['accuracy']:.2f} % " in line
    assert str(pipeline.path("plots/report.html").resolve()) in printed


def test_without_results_it_says_how_to_get_them(project):
    done = project.module("tools.results", status=1)
    assert done.stderr.startswith("error: metrics/results.csv is missing; ")
