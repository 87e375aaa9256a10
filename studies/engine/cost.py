"""Estimate what a study costs, and ask before a long one starts."""

from __future__ import annotations

import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib

from stages.common.cli import StageError
from stages.common.files import read_csv, read_json
from studies.engine.grid import Trial

LONG = 600  # seconds of training; a study that takes longer asks before it starts


@dataclass
class Cost:
    """How many trials are missing, how many of them have recorded results, and their training time.

    `seconds` is None if it cannot be estimated.
    """

    trials: int
    recorded: int
    seconds: float | None

    def __str__(self) -> str:
        where = "one after another" if os.environ.get("RAY_ADDRESS") else "on this machine"
        time = f"about {duration(self.seconds)} {where}" if self.seconds else "an unknown time"
        text = f"training {self.trials} trial{'s'[: self.trials != 1]} takes {time}"
        if self.recorded:
            text += (
                f"; the recorded results of {self.recorded} of them will be replaced, because "
                "settings have changed (the committed params.yaml, --cpus) or files in "
                "studies/trials are gone"
            )
        return text

    def confirm(self) -> None:
        """Ask before a long study, or before one that trains recorded trials again.

        A no, or no terminal to ask on, raises StageError.
        """
        if not self.recorded and self.seconds and self.seconds <= LONG:
            return
        if not sys.stdin.isatty():
            raise StageError(f"{self}; pass --yes to start (make study YES=1)")
        print(f"{self}. Start? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise StageError("nothing was started")


def training_seconds(work: Sequence[tuple[str, int]], trials: Path, cpus: int) -> float | None:
    """Estimate how long trainings take, from the speed of the recorded trials in `trials`.

    `work` has the model of each training and its number of images over all epochs. On a cluster the
    estimate is for one training at a time. None if no trial of one of the models is recorded.
    """
    speeds = defaultdict(list)  # images per second
    for trial in map(read_json, trials.glob("*.json")):
        speeds[trial["job"]["model"]].append(trial["result"]["examples_per_second"])
    if not {model for model, _ in work} <= speeds.keys():
        return None
    seconds = [images / statistics.median(speeds[model]) for model, images in work]
    parallel = 1 if os.environ.get("RAY_ADDRESS") else max(1, joblib.cpu_count() // cpus)
    return max(sum(seconds) / parallel, *seconds)


def count_recorded(results: Path, missing: Sequence[Trial]) -> int:
    """Return how many of the missing trials have a row in the CSV of recorded results."""
    rows = read_csv(results) if results.exists() else []
    places = [trial.cell | {"seed": trial.params.seed} for trial in missing]
    texts = [{key: str(value) for key, value in place.items()} for place in places]
    return sum(any(text.items() <= row.items() for row in rows) for text in texts)


def duration(seconds: float) -> str:
    """Return a duration such as ``40 s``, ``12 min`` or ``5 h 2 min``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
