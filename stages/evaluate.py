"""Stage `evaluate`: the models, and their ensemble, on the test set.

    python -m stages.evaluate

The only stage that opens the test set. The ensemble is the mean of the models' probabilities;
nothing is trained for it. Writes

- `metrics/evaluation.json`: a handful of figures a model, for `dvc metrics diff`;
- `metrics/timing/inference.json`: seconds, which are never the same twice;
- `plots/confusion/`, `plots/per_class/`, `plots/calibration/`: a CSV a model, for `dvc plots`;
- `data/predictions/`: probabilities, float32, and `details.json` with all further figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.backend import choose_threads, configure
from stages.files import replacing, run, write_csv, write_json
from stages.params import ENSEMBLE, MODELS, load_params
from stages.prepared import read_manifest, read_split
from stages.statistics import class_scores, compare_all, details, reliability, summary

TIMED_CALLS = {1: 15, 256: 3}  # images a call: calls, of which the median counts


def main() -> None:
    params = load_params()
    threads = choose_threads(params.train.threads, batch_size=1, batch_norm=False)
    configure(threads, params.seed)
    from stages.archive import load_model
    from stages.training import predict

    class_names = read_manifest()["class_names"]
    x_test, y_test = read_split("test")
    probabilities, seconds = {}, {}
    for name in MODELS:
        model = load_model(Path(f"data/models/{name}.keras"))
        probabilities[name] = predict(model, x_test, workers=threads.inter_op)
        seconds[name] = inference_seconds(model.predict_on_batch, x_test)
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)
    seconds[ENSEMBLE] = {
        batch: sum(seconds[name][batch] for name in MODELS) for batch in seconds[MODELS[0]]
    }

    evaluation = {}
    for name, predicted in probabilities.items():
        evaluation[name] = figures = summary(y_test, predicted)
        save_array(Path(f"data/predictions/{name}.npy"), predicted)
        write_plots(name, y_test, predicted, class_names)
        print(
            f"{name:8}  test accuracy {figures['accuracy']:.4f}  loss {figures['loss']:.4f}  "
            f"macro F1 {figures['macro_f1']:.4f}  errors {figures['errors']} of {len(y_test)}"
        )
    right = {name: predicted.argmax(axis=1) == y_test for name, predicted in probabilities.items()}
    write_json(
        Path("data/predictions/details.json"),
        {
            "models": {
                name: details(y_test, predicted, class_names)
                for name, predicted in probabilities.items()
            },
            "comparisons": compare_all(right, ENSEMBLE),
        },
    )
    write_json(
        Path("metrics/timing/inference.json"),
        {"seconds_per_image": seconds, "threads": threads.as_dict()},
    )
    write_json(Path("metrics/evaluation.json"), evaluation)


def inference_seconds(
    predict_on_batch: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> dict[str, float]:
    """Return the seconds an image takes in batches of 1 and of 256, the first call apart."""
    seconds = {}
    for batch, calls in TIMED_CALLS.items():
        images = np.resize(x[:batch], (batch, *x.shape[1:]))  # repeats those of a small test set
        predict_on_batch(images)
        taken = []
        for _ in range(calls):
            started = time.perf_counter()
            predict_on_batch(images)
            taken.append(time.perf_counter() - started)
        seconds[f"batch_{batch}"] = statistics.median(taken) / batch
    return seconds


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


def save_array(path: Path, array: np.ndarray) -> None:
    """Save an array as `.npy`, whole or not at all."""
    with replacing(path) as temporary:
        np.save(temporary, array)


if __name__ == "__main__":
    run(main)
