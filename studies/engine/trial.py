"""Run one trial: what the stages `train` and `evaluate` do for one model, without files.

With equal parameters, seed and thread setting, a trial gives the pipeline's metrics to the last
digit, because both call the same functions. TensorFlow fixes its threads once per process, so each
trial needs its own process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common.arrays import Arrays
from stages.common.cli import StageError
from stages.common.params import parse_params, without_added
from stages.common.versions import RESULTS_VERSION, libraries
from stages.training.session import train_model


@dataclass(frozen=True)
class Job:
    """What a worker needs to run a trial.

    `params` is a parsed `params.yaml`; `key` identifies everything that determines the results;
    `libraries` are the versions that the worker must have. Recorded trials without
    `results_version` have version 1.
    """

    params: dict[str, Any]
    model: str
    num_classes: int
    key: str
    libraries: dict[str, str]
    results_version: int = RESULTS_VERSION


def trial_key(
    params: Mapping[str, Any], model: str, evaluate: str, manifest: Mapping[str, Any]
) -> str:
    """Return the key of a trial: the SHA-256 of its parameters, data and `RESULTS_VERSION`.

    Sections of other models do not count, nor do `dataset` and `prepare`: the data count by the
    digests in their `manifest`. `evaluate` is the part that is scored, ``test`` or ``val``. A
    parameter in `ADDED` counts only if its value differs from the one there, so that earlier trials
    keep their keys.
    """
    sections = {name: without_added(name, params) for name in ("train", model)}
    facts = {
        "results_version": RESULTS_VERSION,
        "params": {key: params[key] for key in ("epochs", "seed")} | sections,
        "model": model,
        "data": {
            "image_shape": manifest["image_shape"],
            "classes": len(manifest["class_names"]),
            **{
                part: [split["x_sha256"], split["y_sha256"]]
                for part, split in manifest["splits"].items()
            },
        },
        "evaluate": evaluate,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_job(
    params: Mapping[str, Any], model: str, evaluate: str, manifest: Mapping[str, Any]
) -> Job:
    """Return the job of a trial; arguments as for `trial_key`."""
    key = trial_key(params, model, evaluate, manifest)
    return Job(dict(params), model, len(manifest["class_names"]), key, libraries())


def run_trial(job: Job, *arrays: np.ndarray, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and score one model.

    Parameters
    ----------
    arrays
        x and y of the training set, x and y of the validation set and, to score the model on the
        test set, x and y of that.

    Returns
    -------
    dict
        ``val_accuracy, val_loss, parameters, epochs_run``; with a test set, its metrics from
        `scores.summary`; the keys of `Training.timing`; ``history``, one row per epoch.
    """
    if libraries() != job.libraries:
        raise StageError(
            f"the worker has {libraries()}, the driver {job.libraries}: install the same "
            "requirements on every node"
        )
    train_data, val_data, *test_data = (
        Arrays(x, y) for x, y in zip(arrays[::2], arrays[1::2], strict=True)
    )
    training = train_model(
        job.model, parse_params(job.params), train_data, val_data, job.num_classes, log=log
    )
    from stages.evaluation.scores import summary
    from stages.models.shared.inference import predict

    validated = training.score(val_data)
    figures = {"val_accuracy": validated["accuracy"], "val_loss": validated["loss"]}
    for data in test_data:
        probabilities = predict(training.model, data.x, workers=training.threads.inter_op)
        figures |= summary(data.y, probabilities)
    return figures | {
        "parameters": training.model.count_params(),
        "epochs_run": len(training.history),
        **training.timing(),
        "history": training.history,
    }
