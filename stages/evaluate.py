"""Stage `evaluate`: the three models, and their ensemble, on the test set.

    python -m stages.evaluate

The only stage that opens the test set. Writes `metrics/evaluation.json`, `plots/confusion/` (a
row an image: actual and predicted class) and `data/predictions/` (probabilities, float32). The
ensemble is the mean of the models' probabilities; nothing is trained for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, log_loss

from stages.backend import choose_threads, configure
from stages.files import replacing, run, write_csv, write_json
from stages.params import MODELS, load_params
from stages.prepared import read_manifest, read_split

ENSEMBLE = "ensemble"


def main() -> None:
    params = load_params()
    configure(choose_threads(params.train.threads, batch_size=1, batch_norm=False), params.seed)
    from stages.archive import load_model
    from stages.training import predict

    manifest = read_manifest()
    class_names = manifest["class_names"]
    x_test, y_test = read_split("test")
    models = {name: load_model(Path(f"data/models/{name}.keras")) for name in MODELS}
    probabilities = {name: predict(model, x_test) for name, model in models.items()}
    probabilities[ENSEMBLE] = np.mean(list(probabilities.values()), axis=0)

    evaluation = {}
    for name, predicted in probabilities.items():
        evaluation[name] = measure(y_test, predicted)
        save_array(Path(f"data/predictions/{name}.npy"), predicted)
        write_csv(
            Path(f"plots/confusion/{name}.csv"),
            [
                {"actual": class_names[actual], "predicted": class_names[guess]}
                for actual, guess in zip(y_test, predicted.argmax(axis=1), strict=True)
            ],
        )
        figures = evaluation[name]
        print(
            f"{name:8}  test accuracy {figures['accuracy']:.4f}  loss {figures['loss']:.4f}  "
            f"macro F1 {figures['macro_f1']:.4f}  errors {figures['errors']} of {len(y_test)}"
        )
    write_json(Path("metrics/evaluation.json"), evaluation)


def measure(y_true: np.ndarray, probabilities: np.ndarray) -> dict[str, float | int]:
    """Return a model's test figures: accuracy, loss (nats), macro F1 and errors.

    Parameters
    ----------
    y_true
        Labels, int (n,).
    probabilities
        float (n, classes), rows summing to 1.
    """
    guesses = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    rows = probabilities.astype(np.float64)
    return {
        "accuracy": float(accuracy_score(y_true, guesses)),
        "loss": float(log_loss(y_true, rows / rows.sum(axis=1, keepdims=True), labels=classes)),
        "macro_f1": float(
            f1_score(y_true, guesses, labels=classes, average="macro", zero_division=0)
        ),
        "errors": int((guesses != y_true).sum()),
    }


def save_array(path: Path, array: np.ndarray) -> None:
    """Save an array as `.npy`, whole or not at all."""
    with replacing(path) as temporary:
        np.save(temporary, array)


if __name__ == "__main__":
    run(main)
