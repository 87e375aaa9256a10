"""What a worker does: a trial, where its libraries are those that the trial's digest names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from stages.files import StageError
from stages.study.trial import LIBRARIES, Job, run_trial


def versions() -> dict[str, str]:
    """Return the versions here of the libraries on which figures depend."""
    return {library: version(library) for library in LIBRARIES}


def run_alike(
    wanted: Mapping[str, str], job: Job, *arrays: np.ndarray, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run a trial (see `run_trial`) with the library versions `wanted`, which are its driver's.

    Raises
    ------
    StageError
        This worker has others: its figures would be kept under a name that says otherwise.
    """
    for library, needed in wanted.items():
        try:
            here = version(library)
        except PackageNotFoundError:
            here = "none"
        if here != needed:
            raise StageError(
                f"the worker has {library} {here}, the study's driver {needed}: install the same "
                "requirements on every node"
            )
    return run_trial(job, *arrays, log=log)
