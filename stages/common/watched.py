"""Run a pipeline stage, and fail if its code or parameters were edited meanwhile.

DVC computes the digests of the code and reads the parameters when a stage ends (DVC issue 11058).
Without this check, it would record new ones with the results of old ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common.cli import RESUME, StageError, run
from stages.common.overrides import flatten
from stages.common.params import PARAMS_FILE, load_params, read_yaml

PIPELINE = Path("dvc.yaml")
EDITABLE = ("stages", "studies")  # their files are edited by people; stages write the others


def run_stage(main: Callable[[], Callable[[], object] | None]) -> None:
    """Run the main function of a stage as `cli.run` does. Fail if the stage was edited meanwhile.

    `main` may return a function, which runs last, and only if nothing was edited.
    """

    def watched() -> None:
        before = recorded()
        finish = main()
        after = recorded()
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                raise StageError(
                    f"{name} was edited while this stage ran, so dvc.lock would record the new "
                    "version with old results; run the same command again"
                )
        if finish:
            finish()

    run(watched, RESUME)


def recorded() -> dict[str, Any]:
    """Return the files and parameters that `dvc.yaml` lists for the stage that this process runs.

    Keys are texts for the user. Of a command that is no stage of `dvc.yaml`, nothing is returned.
    """
    words = sys.orig_argv
    command = " ".join(["python", *words[words.index("-m") :]]) if "-m" in words else ""
    stages = read_yaml(PIPELINE)["stages"].values() if PIPELINE.exists() else ()
    stage = next((stage for stage in stages if stage["cmd"] == command), None)
    if stage is None:
        return {}
    found: dict[str, Any] = {}
    for path in (Path(dep) for dep in stage["deps"] if Path(dep).parts[0] in EDITABLE):
        for file in path.rglob("[!.]*") if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                found[str(file)] = file.read_bytes()
    for key, value in flatten(load_params().model_dump()).items():
        if any(f"{key}.".startswith(f"{name}.") for name in stage["params"]):
            found[f"{key} in {PARAMS_FILE}"] = value
    return found
