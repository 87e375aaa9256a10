"""Measure our side: some epochs of training, as the stage `train_MODEL` runs them.

    python -m benchmarks.ours cnn data/prepared

Uses `settings.yaml`, with augmentation and learning-rate schedule, except for `--set`. Prints a
JSON object with the seconds of each epoch, validation included. The first epoch builds the graph.
"""

import argparse
import json
from pathlib import Path

from benchmarks.bench import measured_params
from stages.common.arrays import Arrays, read_split
from stages.common.params import model_names
from stages.training.session import train_model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=model_names())
    parser.add_argument("folder", type=Path, help="folder of the prepared arrays")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--set", type=json.loads, default={}, help="dotted settings, as JSON")
    arguments = parser.parse_args()
    precision = "float32" if arguments.precision == "float32" else "mixed_bfloat16"
    overrides = {"epochs": arguments.epochs, "train.precision": precision} | arguments.set
    params = measured_params(overrides)
    data = read_split("train", arguments.folder)
    n = round(len(data.y) * arguments.fraction)
    training = train_model(
        arguments.model,
        params,
        Arrays(data.x[:n], data.y[:n]),
        read_split("val", arguments.folder),
        int(data.y.max()) + 1,
        log=lambda _: None,
    )
    facts = {
        "epochs": training.history,
        "examples": n,
        "parameters": training.model.count_params(),
        "threads": training.threads.as_dict(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
