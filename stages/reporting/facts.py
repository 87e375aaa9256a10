"""What the page shows, from the files that the earlier stages wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stages.common.arrays import PREPARED, Arrays, read_array, read_manifest, read_split
from stages.common.files import read_csv, read_json
from stages.common.params import ENSEMBLE, Params
from stages.reporting import figures, mistakes, page
from stages.reporting.drawing import HEADS, blocks, layer_table
from stages.reporting.sentences import listing, standing, verdict
from stages.reporting.table import TIMING, collect, summary_table
from stages.reporting.targets import against_study, published, study_of, target_of

PREDICTIONS = Path("data/predictions")


@dataclass
class Results:
    """The contents of the files. Mappings are by model; those about training lack the ensemble.

    `predictions` are probabilities, float32 (n, classes), of the images in `test`.
    """

    manifest: dict[str, Any]
    test: Arrays
    tested: dict[str, dict[str, float]]
    details: dict[str, Any]
    rows: list[dict[str, Any]]
    predictions: dict[str, np.ndarray]
    histories: dict[str, page.Table]
    timing: dict[str, dict[str, Any]]
    inference: dict[str, Any]
    scores: dict[str, page.Table]
    bins: dict[str, page.Table]
    corrupted: page.Table

    @property
    def models(self) -> list[str]:
        """The trained models."""
        return [name for name in self.tested if name != ENSEMBLE]


def read_results() -> Results:
    """Read what the earlier stages wrote. A missing or damaged file raises StageError."""
    tested = {name: row["test"] for name, row in read_json(Path("metrics/test.json")).items()}
    models = [name for name in tested if name != ENSEMBLE]
    details = read_json(PREDICTIONS / "details.json")
    return Results(
        manifest=read_manifest(),
        test=read_split("test"),
        tested=tested,
        details=details,
        rows=collect(details["models"]),
        predictions={name: read_array(PREDICTIONS / f"{name}.npy") for name in tested},
        histories={name: read_csv(Path(f"plots/history/{name}.csv")) for name in models},
        timing={name: read_json(TIMING / f"{name}.json") for name in models},
        inference=read_json(TIMING / "inference.json"),
        scores=page.by_model(Path("plots/per_class.csv")),
        bins=page.by_model(Path("plots/calibration.csv")),
        corrupted=read_csv(Path("plots/robustness.csv")),
    )


def headline(run: Results) -> dict[str, Any]:
    """Return the answer, and the metrics of each model."""
    errors = {row["model"]: row["errors"] for row in run.rows}
    comparisons = run.details["comparisons"]
    best, alike, _ = standing(errors, comparisons)
    return {
        "title": f"{listing(run.models, article='')} on {run.manifest['dataset']}",
        "verdict": verdict(errors, comparisons, len(run.test.y)),
        "rows": run.rows,
        "leading": [*best, *alike],
        "comparisons": comparisons,
        "tested": run.tested,
        "details": run.details["models"],
        "manifest": run.manifest,
        "timing": run.timing,
        "inference": run.inference["seconds_per_image"],
        "commit": run.inference["commit"],
        "colours": {name: figures.look(name, [*run.tested])["color"] for name in run.tested},
    }


def references(run: Results, params: Params) -> dict[str, Any]:
    """Return what the results are compared with: targets, reported accuracies, a study."""
    dataset, epochs = run.manifest["dataset"], {row["model"]: row["epochs"] for row in run.rows}
    found = {
        name: study_of(name, params.model_dump(), run.timing[name]["versions"])
        for name in run.models
    }
    cells = {name: cell for name, cell in found.items() if cell}
    targets = {name: target_of(dataset, name, epochs[name]) for name in run.models}
    entries = published(dataset, [*epochs.values()])
    return {
        "published": entries,
        "table": summary_table(run.rows, entries),
        "targets": {name: target for name, target in targets.items() if target},
        "epochs": epochs,
        "cells": cells,
        "seeds": [
            against_study(name, run.tested[name]["accuracy"], len(run.test.y), cell)
            for name, cell in cells.items()
        ],
    }


def inside(run: Results) -> dict[str, Any]:
    """Return how the models are built, how they learned, and what they look at."""
    class_names = run.manifest["class_names"]
    architecture, explanations = {}, {}
    for name, layers in read_json(PREDICTIONS / "architecture.json").items():
        architecture[name] = {
            "blocks": blocks(layers),
            "heads": HEADS,
            "table": layer_table(layers),
            "multiply_adds": sum(layer["multiply_adds"] for layer in layers),
            "step": next((layer["step"] for layer in layers if layer["step"]), ""),
        }
    for name, entry in read_json(PREDICTIONS / "explanations.json").items():
        step = architecture[name]["step"]
        images = page.explained(entry, run.test.x, class_names, step)
        explanations[name] = {"kind": entry["kind"], "images": images}
    return {
        "architecture": architecture,
        "explanations": explanations,
        "histories": run.histories,
        "learning": {name: page.learning(history) for name, history in run.histories.items()},
        "sparklines": {name: page.sparkline(history) for name, history in run.histories.items()},
        "robustness": page.by_corruption(run.corrupted),
        "corrupted": run.corrupted,
        "classes": page.class_ranking(run.scores, run.models, class_names),
        "bins": run.bins,
        "sheet": page.contact_sheet(read_array(PREPARED / "contact_sheet.npy"), class_names),
    }  # fmt: skip


def images(run: Results, more: Sequence[int]) -> dict[str, Any]:
    """Return mistakes, suspects and confusions; and pictures of their images and of `more`."""
    x, y, class_names = run.test.x, run.test.y, run.manifest["class_names"]
    grid = mistakes.chosen_mistakes(y, run.predictions, math.prod(x.shape[1:]))
    suspects = mistakes.suspects(y, run.predictions)
    listed = suspects[: mistakes.SUSPECTS]
    return {
        "mistakes": grid,
        "suspects": listed,
        "suspected": len(suspects),
        "disagreements": mistakes.disagreements(y, run.predictions),
        "confusion": {
            name: mistakes.confusion_matrix(y, each) for name, each in run.predictions.items()
        },
        "coverage": {name: mistakes.answered(y, each) for name, each in run.predictions.items()},
        "images": {
            i: mistakes.shown(i, x, y, run.predictions, class_names)
            for i in sorted({*grid, *listed, *more})
        },
    }


def drawings(run: Results, facts: Mapping[str, Any]) -> dict[str, tuple[Callable[[], Figure], str]]:
    """Return for each figure a function that makes it, and its alternative text."""
    least = 0.5 / run.manifest["splits"]["val"]["images"]
    reported = [(entry.model, entry.accuracy, entry.title) for entry in facts["published"]]
    made = {
        "forest": (
            partial(figures.forest, run.rows, facts["comparisons"], facts["targets"], reported),
            "Accuracies: test accuracy of each model and differences, with 95 % intervals"),
        "learning_curves": (partial(figures.learning_curves, run.histories, least),
                            "Learning curves: error rate and loss per epoch"),
        "per_class": (partial(figures.per_class, facts["classes"]),
                      "Classes: accuracy of each model per class, with 95 % intervals"),
        "calibration": (partial(figures.reliability, run.bins),
                        "Calibration: accuracy against confidence"),
        "coverage": (partial(figures.coverage, facts["coverage"]),
                     "Coverage: accuracy against the share of images answered"),
        "cost": (partial(figures.cost, page.costs(run.rows), "test accuracy"),
                 "Cost: test accuracy against training time"),
    }  # fmt: skip
    if run.corrupted:
        text = "Robustness: accuracy against strength, for each corruption"
        made["robustness"] = (partial(figures.robustness, run.corrupted), text)
    return made
