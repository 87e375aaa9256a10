"""Print a model's layers with their parameters and multiply-adds, and a drawing.

    python -m tools.describe cnn

The model is built from `params.yaml` for the prepared data. It need not be trained.
"""

from __future__ import annotations

import argparse

from stages.common.arrays import read_manifest
from stages.common.cli import run
from stages.common.params import load_params, model_names
from stages.reporting.drawing import HEADS, as_text, layer_table
from stages.reporting.table import markdown
from stages.training.runtime import choose_threads, configure


def main() -> None:
    parser = argparse.ArgumentParser(description="Print a model's layers and their costs.")
    parser.add_argument("model", choices=model_names())
    name = parser.parse_args().model
    params, manifest = load_params(), read_manifest()
    configure(choose_threads(1, batch_size=1, batch_norm=False), params.seed)
    from stages.evaluation.counting import architecture
    from stages.models import build

    classes = len(manifest["class_names"])
    model = build(name, manifest["image_shape"], classes, params.models[name])
    layers = architecture(model)
    print(markdown([HEADS, *layer_table(layers)], [False] * 2 + [True] * 4))
    print(as_text(layers))


if __name__ == "__main__":
    run(main)
