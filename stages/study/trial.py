"""One trial of a study: what the stages `train` and `evaluate` do for one model, without files.

Equal parameters, seed and thread setting give the figures of the pipeline to the last digit:
the functions are the same. TensorFlow's threads are set once a process, so a trial needs one of
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from stages.backend import choose_threads, configure
from stages.digests import code_digest, json_digest
from stages.files import StageError
from stages.params import MODELS, Convolutional, parse_params

# The modules that the figures come from. What data they get is in the data's digests, what
# parameters in the parameters; how a run is timed and reported does not change them.
CODE = ("backend", "models", "statistics", "training", "study/trial")
LIBRARIES = ("keras", "tensorflow", "numpy")


@dataclass(frozen=True)
class Job:
    """What a worker is told: parameters (as a mapping), model, data, and what identifies them.

    `digest` stands for all that determines the figures; `code` is the digest of `CODE`.
    """

    params: dict[str, Any]
    model: str
    num_classes: int
    digest: str
    code: str


def describe(
    params: Mapping[str, Any], model: str, evaluate: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what determines a trial's figures; `data` is `stages.prepare.manifest`'s.

    Of `prepare` only the arrays that it gave count, of the models only the one that is trained.
    """
    used = {
        key: value for key, value in params.items() if key not in (*MODELS, "dataset", "prepare")
    }
    return {
        "params": used | {model: params[model]},
        "model": model,
        "data": {
            "image_shape": data["image_shape"],
            "classes": len(data["class_names"]),
            **{
                part: [split["x_sha256"], split["y_sha256"]]
                for part, split in data["splits"].items()
            },
        },
        "evaluate": evaluate,
        "code": code_digest(CODE),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def make_job(params: Mapping[str, Any], model: str, evaluate: str, data: Mapping[str, Any]) -> Job:
    """Return the job of a trial, named by the digest of what determines it."""
    key = describe(params, model, evaluate, data)
    return Job(dict(params), model, len(data["class_names"]), json_digest(key), key["code"])


def run_trial(job: Job, *arrays: np.ndarray, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and score one model; `arrays` are x and y of train, val and, for a test, of test.

    Returns
    -------
    dict
        ``val_accuracy, val_loss, parameters, epochs_run, history`` (a row an epoch); with a test
        set ``accuracy, loss, macro_f1, calibration_error, errors`` on it; and what it cost, as
        `stages.train.timing` has it.
    """
    if job.code != code_digest(CODE):
        raise StageError("the worker's code is not the study's: restart the study")
    params = parse_params(job.params)
    section = getattr(params, job.model)
    batch_norm = isinstance(section, Convolutional) and section.batch_norm
    threads = choose_threads(params.train.threads, params.train.batch_size, batch_norm)
    configure(threads, params.seed, params.train.precision)
    from stages.models import build
    from stages.statistics import summary
    from stages.train import progress, timing
    from stages.training import Arrays, fit, predict, score

    train_data, val_data, *test_data = (
        Arrays(x, y) for x, y in zip(arrays[::2], arrays[1::2], strict=True)
    )
    model = build(job.model, train_data.x.shape[1:], job.num_classes, section)
    history: list[dict[str, float]] = []
    for row in fit(
        model,
        train_data,
        val_data,
        epochs=params.epochs,
        seed=params.seed,
        train=params.train,
        section=section,
        batch_parts=threads.batch_parts,
    ):
        history.append(row)
        log(progress(job.model, history, params.epochs))
    validated = score(model, val_data, workers=threads.inter_op)
    figures = {"val_accuracy": validated["accuracy"], "val_loss": validated["loss"]}
    if test_data:
        figures |= summary(test_data[0].y, predict(model, test_data[0].x, workers=threads.inter_op))
    return figures | {
        "parameters": model.count_params(),
        "epochs_run": len(history),
        **timing(history, len(train_data.y), threads),
        "history": history,
    }
