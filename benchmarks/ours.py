"""Our side: epochs of training as the stage `train_MODEL` runs them.

    python -m benchmarks.ours cnn data/prepared

Everything is as params.yaml has it, augmentation and learning-rate schedule included, but for
what `--set` names. Prints a JSON object: the seconds of each epoch with its validation, of which
the first builds the graph.
"""

import argparse
import json
import resource
import sys
from pathlib import Path

from stages.backend import choose_threads, configure
from stages.params import MODELS, PARAMS_FILE, Convolutional, parse_params, read_yaml
from stages.prepared import read_split
from stages.study.file import with_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path, help="of the prepared arrays")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training set")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--set", type=json.loads, default={}, help="dotted keys and their values, a JSON object"
    )
    arguments = parser.parse_args()

    params = parse_params(with_settings(read_yaml(PARAMS_FILE), arguments.set))
    section = getattr(params, arguments.model)
    precision = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[arguments.precision]
    batch_norm = isinstance(section, Convolutional) and section.batch_norm
    threads = choose_threads(params.train.threads, params.train.batch_size, batch_norm)
    configure(threads, params.seed, precision)
    from stages.models import build
    from stages.training import Arrays, fit

    x, y = read_split("train", arguments.folder)
    n = round(len(y) * arguments.fraction)
    model = build(arguments.model, x.shape[1:], int(y.max()) + 1, section)
    epochs = fit(
        model,
        Arrays(x[:n], y[:n]),
        Arrays(*read_split("val", arguments.folder)),
        epochs=arguments.epochs,
        seed=params.seed,
        train=params.train,
        section=section,
        batch_parts=threads.batch_parts,
    )
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    print(
        json.dumps(
            {
                "epochs": list(epochs),
                "examples": n,
                "parameters": model.count_params(),
                "threads": threads.as_dict(),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
            }
        )
    )


if __name__ == "__main__":
    main()
