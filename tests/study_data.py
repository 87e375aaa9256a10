"""Invented results of a study's trials."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.common.params import Params, parse_params
from studies.engine.grid import Study, Trial, trials


def invented_results(
    document: dict[str, Any], grid: dict | list, **others: Any
) -> tuple[Study, list[tuple[Trial, dict[str, Any]]], Params]:
    """Return a study, its trials with invented figures, and the parameters of `document`."""
    facts = {"description": "a test", "evaluate": "test", "grid": grid} | others
    study = Study.model_validate(facts)
    random = np.random.default_rng(0)
    found = []
    for trial in trials(study, document, cpus=1):
        accuracy = float(random.normal(0.9, 0.01))
        figures = {
            "accuracy": accuracy, "loss": 1 - accuracy, "macro_f1": accuracy, "errors": 5,
            "val_accuracy": accuracy - 0.01, "val_loss": 0.3, "parameters": 99,
            "epochs_run": trial.params.epochs, "train_seconds": random.uniform(1, 9),
            "seconds_per_epoch": 1.0, "processor": "invented",
            "threads": {"intra_op": 1, "inter_op": 1, "batch_parts": 2},
            "versions": {"keras": "3", "tensorflow": "2", "numpy": "2"},
        }  # fmt: skip
        if study.evaluate == "val":
            for key in ("accuracy", "loss", "macro_f1", "errors"):
                del figures[key]
        found.append((trial, figures))
    return study, found, parse_params(document)
