"""Print a dataset's recipe as arguments of `dvc exp run`.

    dvc exp run $(python -m tools.recipe digits) -S epochs=30

A recipe, `recipes/NAME.yaml`, holds what differs from `params.yaml` for a dataset.
"""

from __future__ import annotations

import argparse

from stages.common.cli import run
from stages.common.overrides import exp_run_command
from stages.common.params import DATASETS, recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Print a recipe as arguments of `dvc exp run`.")
    parser.add_argument("dataset", help=f"{', '.join(DATASETS)}, or the path of your own data")
    print(exp_run_command(recipe(parser.parse_args().dataset)).removeprefix("dvc exp run "))


if __name__ == "__main__":
    run(main)
