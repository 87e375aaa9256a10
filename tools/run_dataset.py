"""Run the whole pipeline on a dataset in a folder of its own, and print the result.

    python -m tools.run_dataset digits
    python -m tools.run_dataset fashion_mnist -S epochs=30 -S seed=3

Copies the code to `runs/NAME/` and runs `dvc repro` there. The project's own parameters, results
and data stay as they are. Works without git. The parameters are those of `params.yaml`, changed by
`recipes/NAME.yaml`, if it exists, and by `-S`. The same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from stages.common.cli import RESUME, StageError, run
from stages.common.files import write_text
from stages.common.overrides import parse_overrides, with_overrides
from stages.common.params import DATASETS, PARAMS_FILE, parse_params, read_yaml, recipe
from stages.reporting.table import REPORT

RUNS, RAW = Path("runs"), Path("data/raw")
COPIED = (
    "dvc.yaml",
    ".dvcignore",
    ".dvc/plots",
    "stages/__init__.py",
)  # besides what the stages in dvc.yaml read


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the whole pipeline on a dataset.")
    parser.add_argument("dataset", help=f"{', '.join(DATASETS)}, or the path of your own data")
    parser.add_argument(
        "-S", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="change a parameter, such as epochs=30",
    )  # fmt: skip
    arguments = parser.parse_args()
    params = parameters(arguments.dataset, arguments.settings)
    folder = folder_of(params["dataset"])
    copy_project(folder)
    write_text(folder / PARAMS_FILE, yaml.safe_dump(params, sort_keys=False))
    reproduce(folder)
    print(f"\n{(folder / REPORT).with_suffix('.md').read_text(encoding='utf-8')}")
    print(f"report  {(folder / REPORT).resolve().as_uri()}")
    ours = read_yaml(PARAMS_FILE)["dataset"]
    print(f"next    make report (opens it), or an experiment on {ours}: dvc exp run -S epochs=30")


def parameters(dataset: str, settings: list[str]) -> dict[str, Any]:
    """Return the parameters of a run: `params.yaml`, then the dataset's recipe, then `settings`.

    Raises
    ------
    StageError
        A setting is not KEY=VALUE with a key of params.yaml, or a value is not allowed.
    """
    changes = recipe(dataset)
    if changes["dataset"] not in DATASETS and not Path(dataset).is_relative_to(RAW):
        changes["dataset"] = str(Path(dataset).absolute())  # it runs in another folder
    changes |= parse_overrides(settings)
    return parse_params(with_overrides(read_yaml(PARAMS_FILE), changes)).model_dump()


def folder_of(dataset: str) -> Path:
    """Return the folder of a dataset's run. StageError if it holds a run on other data."""
    folder = RUNS / Path(dataset).stem
    if (folder / PARAMS_FILE).exists():
        other = read_yaml(folder / PARAMS_FILE)["dataset"]
        if Path(other).absolute() != Path(dataset).absolute():
            raise StageError(f"{folder} holds a run on {other}; rename or delete this folder first")
    return folder


def copy_project(folder: Path) -> None:
    """Copy the code, and whatever else the stages read, to `folder`, which may have an older copy.

    The copy is a DVC project without git that shares the project's cache.
    """
    stages = read_yaml(Path("dvc.yaml"))["stages"].values()
    read = {dep for stage in stages for dep in stage["deps"]}
    inputs = {dep for dep in read if dep.startswith(("stages/", "studies/", "data/raw"))}
    for name in sorted(inputs | {*COPIED}):
        source, target = Path(name), folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, copy_function=link if source == RAW else shutil.copy2,
                            ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    cache = Path(".dvc/cache").absolute()
    write_text(
        folder / ".dvc/config",
        f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache}\n",
    )


def link(source: str, target: str) -> None:
    """Give a file of the user's data a second name, or copy it where that is impossible."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def reproduce(folder: Path) -> None:
    """Run `dvc repro` in `folder`. If a stage fails, end with DVC's status; DVC says why."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=environment, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    run(main, RESUME)
