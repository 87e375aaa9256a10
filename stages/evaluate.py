"""Stage `evaluate`: score the models and their ensemble on the test set.

    python -m stages.evaluate

The only stage that scores on the test set. The ensemble is the mean of the models' probabilities.
Writes

- `metrics/evaluation.json`: a few figures per model, for `dvc metrics diff`;
- `metrics/timing/inference.json`: seconds per image, which vary from run to run;
- `plots/confusion/`, `plots/per_class/`, `plots/calibration/`: one CSV per model, for `dvc plots`;
- `data/predictions/`: probabilities, float32, and `details.json` with all other figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.common.arrays import read_manifest, read_split, write_array
from stages.common.cli import run
from stages.common.files import write_csv, write_json
from stages.common.params import ENSEMBLE, load_params
from stages.evaluation.scores import class_scores, details, reliability, summary
from stages.evaluation.significance import compare_all
from stages.training.runtime import choose_threads, configure

TIMED_CALLS = {1: 15, 256: 3}  # images per call: number of calls, of which the median counts


def main() -> None:
    params = load_params()
    threads = choose_threads(params.train.threads, batch_size=1, batch_norm=False)
    configure(threads, params.seed)
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict

    class_names = read_manifest()["class_names"]
    test = read_split("test")
    probabilities, seconds = {}, {}
    for name in params.models:
        model = load_model(Path(f"data/models/{name}.keras"))
        probabilities[name] = predict(model, test.x, workers=threads.inter_op)
        seconds[name] = inference_seconds(model.predict_on_batch, test.x)
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)
    seconds[ENSEMBLE] = {
        batch: sum(seconds[name][batch] for name in params.models)
        for batch in next(iter(seconds.values()))
    }
    write_scores(test.y, probabilities, class_names)
    write_json(
        Path("metrics/timing/inference.json"),
        {"seconds_per_image": seconds, "threads": threads.as_dict()},
    )


def inference_seconds(
    predict_on_batch: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> dict[str, float]:
    """Return the median seconds per image in batches of 1 and 256, after one warm-up call."""
    seconds = {}
    for batch, calls in TIMED_CALLS.items():
        images = np.resize(x[:batch], (batch, *x.shape[1:]))  # repeats images if there are fewer
        predict_on_batch(images)
        taken = []
        for _ in range(calls):
            started = time.perf_counter()
            predict_on_batch(images)
            taken.append(time.perf_counter() - started)
        seconds[f"batch_{batch}"] = statistics.median(taken) / batch
    return seconds


def write_scores(
    y_true: np.ndarray, probabilities: dict[str, np.ndarray], class_names: list[str]
) -> None:
    """Write all figures that follow from the labels (n,) and each model's probabilities."""
    evaluation, more = {}, {}
    for name, predicted in probabilities.items():
        evaluation[name] = figures = summary(y_true, predicted)
        more[name] = details(y_true, predicted, class_names)
        write_array(Path(f"data/predictions/{name}.npy"), predicted)
        write_plots(name, y_true, predicted, class_names)
        print(
            f"{name:8}  test accuracy {100 * figures['accuracy']:.2f} %  loss {figures['loss']:.4f}"
            f"  macro F1 {100 * figures['macro_f1']:.2f} %  "
            f"errors {figures['errors']} of {len(y_true):,}"
        )
    right = {name: predicted.argmax(axis=1) == y_true for name, predicted in probabilities.items()}
    write_json(
        Path("data/predictions/details.json"),
        {"models": more, "comparisons": compare_all(right, ENSEMBLE)},
    )
    write_json(Path("metrics/evaluation.json"), evaluation)


def write_plots(
    name: str, y_true: np.ndarray, probabilities: np.ndarray, class_names: list[str]
) -> None:
    """Write the CSVs that DVC and the report draw for one model."""
    guesses = probabilities.argmax(axis=1)
    write_csv(
        Path(f"plots/confusion/{name}.csv"),
        [
            {"actual": class_names[actual], "predicted": class_names[guess]}
            for actual, guess in zip(y_true, guesses, strict=True)
        ],
    )
    scores = class_scores(y_true, probabilities)
    write_csv(
        Path(f"plots/per_class/{name}.csv"),
        [
            {"class": class_name, **{key: values[i].item() for key, values in scores.items()}}
            for i, class_name in enumerate(class_names)
        ],
    )
    write_csv(Path(f"plots/calibration/{name}.csv"), reliability(y_true, probabilities))


if __name__ == "__main__":
    run(main)
