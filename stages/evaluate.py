"""Stage `evaluate`: score the models and their ensemble on the test set.

    python -m stages.evaluate

The only stage that scores on the test set. The ensemble is the mean of the models' probabilities.
Writes

- `metrics/test.json`: a few metrics per model, for `dvc metrics diff`;
- `plots/confusion.csv`, `plots/per_class.csv`, `plots/calibration.csv`, `plots/mistakes.csv`: all
  models in one table each, for `dvc plots` and the review;
- `plots/robustness.csv`: accuracy on corrupted images, if `evaluate.corruptions` is true;
- `data/predictions/`: probabilities, float32, and JSON files: `details`, `architecture` (layers and
  their costs), `explanations` (what the models look at);
- `data/timing/inference.json`: seconds per image, and the commit of the code.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from stages.common.arrays import read_manifest, read_split
from stages.common.files import write_json
from stages.common.git import commit
from stages.common.params import ENSEMBLE, load_params
from stages.common.watched import run_stage
from stages.evaluation.outputs import PREDICTIONS, write_scores
from stages.training.runtime import choose_threads, configure


def main() -> None:
    params = load_params()
    threads = choose_threads(params.train.threads, batch_size=1, batch_norm=False)
    configure(threads, params.seed)
    from stages.evaluation.counting import architecture
    from stages.evaluation.explanations import explain
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import inference_seconds, predict

    class_names = read_manifest()["class_names"]
    test = read_split("test")
    models = {name: load_model(Path(f"data/models/{name}.keras")) for name in params.models}

    def predict_all(x: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: predict(model, x, threads.inter_op) for name, model in models.items()}
        return found | {ENSEMBLE: np.mean(list(found.values()), axis=0)}

    probabilities = predict_all(test.x)
    seconds = {
        name: inference_seconds(model.predict_on_batch, test.x) for name, model in models.items()
    }
    seconds[ENSEMBLE] = {
        batch: sum(seconds[name][batch] for name in models)
        for batch in next(iter(seconds.values()))
    }
    robustness = []
    if params.evaluate.corruptions:
        from stages.evaluation.corruptions import accuracies

        robustness = list(accuracies(test.x, test.y, predict_all))
    write_scores(test.y, probabilities, class_names, robustness)
    write_json(
        PREDICTIONS / "architecture.json",
        {name: architecture(model) for name, model in models.items()},
    )
    write_json(
        PREDICTIONS / "explanations.json",
        {
            name: explain(model, test.x, test.y, probabilities[name], partial(predict, model))
            for name, model in models.items()
        },
    )
    write_json(
        Path("data/timing/inference.json"),
        {"seconds_per_image": seconds, "threads": threads.as_dict(), "commit": commit()},
    )


if __name__ == "__main__":
    run_stage(main)
