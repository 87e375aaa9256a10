"""Run a study: many trials, several seeds, on one machine or on a cluster.

    python -m studies.engine studies/comparison.yaml

`studies/engine/grid.py` describes the study file. Each finished trial is saved at once in
`studies/trials/`, named by its key, with its log. After an interruption, or with a larger grid,
only missing trials run. Writes `studies/results/NAME.csv` (one row per trial), `NAME.json` (means,
spreads, comparisons), the page `NAME.html` and its first figure `NAME.png`. If a trial fails, it
lists what is missing and ends with status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from stages.common.cli import StageError
from stages.common.files import read_json, write_bytes, write_csv, write_json, write_text
from stages.common.params import PARAMS_FILE, Params, parse_params, read_yaml
from stages.datasets.catalog import load_dataset
from stages.datasets.splits import manifest, split
from studies.engine.grid import Study, Trial, read_study, trials
from studies.engine.page import overview, page, verdicts
from studies.engine.pool import Outcome, Progress, connected, run_jobs
from studies.engine.summary import cells, row, table
from studies.engine.trial import Job, make_job, run_trial

TRIALS = Path("studies/trials")
RESULTS = Path("studies/results")


@dataclass
class Data:
    """One prepared data set: its manifest, and x and y of each part that a study may see."""

    manifest: dict[str, Any]
    arrays: list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine", description="Run a study, or what is missing of it."
    )
    parser.add_argument("study", type=Path, help="its file, studies/NAME.yaml")
    parser.add_argument("--cpus", type=int, help="a trial's, instead of the file's; 0 = all")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--list", action="store_true", help="only say what there is to do")
    only.add_argument("--results", action="store_true", help="of what is done; train nothing")
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    document = read_yaml(PARAMS_FILE)
    committed = parse_params(document)
    cpus = cores_of_a_trial(study, arguments.cpus)
    found = trials(study, document, cpus)
    data = prepare_all(found, study)
    jobs = [make_trial_job(trial, study, data) for trial in found]
    missing = {job.key: job for job in jobs if not path_of(job.key).exists()}
    done = sum(job.key not in missing for job in jobs)
    name = name_of_study(arguments.study)
    print(f"{name}: {len(found)} trials, of which {done} are done", flush=True)
    if arguments.list:
        return
    check_cores(cpus)
    failures = []
    if missing and not arguments.results:
        failures = run_missing(list(missing.values()), data, study, cpus)
    finished = [
        (trial, read_json(path)["result"], job.key)
        for trial, job in zip(found, jobs, strict=True)
        if (path := path_of(job.key)).exists()
    ]
    if finished:
        write_results(name, study, finished, committed)
    if not arguments.results:
        report_missing(failures, jobs)


def name_of_study(path: Path) -> str:
    """Return a study's name: its path within `studies/`, without the suffix."""
    path = path.resolve().with_suffix("")
    folder = TRIALS.parent.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.stem


def cores_of_a_trial(study: Study, wanted: int | None) -> int:
    """Return the cores of a trial: those of the study's file, or `wanted` (0 = all of here).

    Raises
    ------
    StageError
        All are wanted where a cluster will run the trials, whose nodes may have another number.
    """
    if os.environ.get("RAY_ADDRESS") and wanted == 0:
        raise StageError("--cpus 0 is for one machine: say how many cores of a node a trial gets")
    return study.cpus if wanted is None else wanted or joblib.cpu_count()


def check_cores(cpus: int) -> None:
    """Raise StageError where this machine is to run trials of more cores than it has."""
    if not os.environ.get("RAY_ADDRESS") and cpus > joblib.cpu_count():
        raise StageError(f"a trial asks for {cpus} cores, of which there are {joblib.cpu_count()}")


def prepare_all(found: Sequence[Trial], study: Study) -> dict[str, Data]:
    """Load and split, as the stage `prepare` does, each data set that the trials name."""
    made: dict[str, Data] = {}
    for trial in found:
        key = data_key(trial.params)
        if key not in made:
            dataset = load_dataset(trial.params.dataset)
            prepare = trial.params.prepare
            parts = split(dataset, prepare.val_fraction, prepare.split_seed)
            if study.evaluate == "val":
                del parts["test"]  # a search must not see it
            facts = manifest(trial.params.dataset, dataset.class_names, parts)
            made[key] = Data(facts, [array for part in parts.values() for array in part])
    return made


def data_key(params: Params | Mapping[str, Any]) -> str:
    values = params if isinstance(params, Mapping) else params.model_dump()
    return f"{values['dataset']} {values['prepare']}"


def make_trial_job(trial: Trial, study: Study, data: Mapping[str, Data]) -> Job:
    facts = data[data_key(trial.params)].manifest
    return make_job(trial.params.model_dump(), trial.model, study.evaluate, facts)


def path_of(key: str) -> Path:
    return TRIALS / f"{key}.json"


# --- running ------------------------------------------------------------------------------


def run_missing(
    jobs: Sequence[Job], data: Mapping[str, Data], study: Study, cpus: int
) -> list[Outcome]:
    """Run jobs, keep each result as it comes, and return the outcomes that are failures."""
    console = Console(sum(job.params["epochs"] for job in jobs), len(jobs))

    def keep(progress: Progress) -> None:
        new = progress.ended[console.seen :]
        for outcome in new:
            path = path_of(outcome.job.key)
            write_text(path.with_suffix(".log"), log_of(outcome))
            if outcome.result is not None:
                facts = {"job": vars(outcome.job), "node": outcome.node}
                write_json(path, facts | {"result": outcome.result})
        console.show(progress)
        for outcome in new:  # it is on disk: thousands of trials must not fill the memory
            outcome.log, outcome.result = "", None if outcome.result is None else {}

    size = sum(array.nbytes for each in data.values() for array in each.arrays)
    with connected(size):
        ended = run_jobs(
            jobs,
            run_trial,
            lambda job: data[data_key(job.params)].arrays,
            cpus=cpus,
            gpus=study.gpus,
            on_change=keep,
        )
    return [outcome for outcome in ended if outcome.result is None]


def log_of(outcome: Outcome) -> str:
    ended = f"failed: {outcome.error}" if outcome.error else "finished"
    return f"{name_of(outcome.job)}\n{outcome.log}{ended} (attempt {outcome.attempts})\n"


def name_of(job: Job) -> str:
    params = job.params
    return f"{params['dataset']} {job.model} epochs={params['epochs']} seed={params['seed']}"


@dataclass
class Console:
    """The study's progress: a line for each end, and in a terminal one that stays below.

    The time that is left follows from the epochs: those of all jobs, and those that are done.
    """

    epochs: int
    total: int
    seen: int = 0
    failed: int = 0
    done_epochs: int = 0
    started: float = field(default_factory=time.monotonic)

    def show(self, progress: Progress) -> None:
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        for outcome in progress.ended[self.seen :]:
            self.seen += 1
            self.failed += outcome.result is None
            self.done_epochs += outcome.job.params["epochs"]
            print(f"{clear}[{self.seen}/{self.total}] {said(outcome)}", flush=True)
        if clear or not progress.running:
            end = "" if progress.running else "\n"
            print(f"{clear}{self.status(progress)}", end=end, flush=True)

    def status(self, progress: Progress) -> str:
        spent = time.monotonic() - self.started
        left = ""
        if self.done_epochs and progress.running:
            seconds = spent * (self.epochs - self.done_epochs) / self.done_epochs
            left = f", about {duration(seconds)} left"
        return (
            f"{self.seen - self.failed} done, {progress.running} running, "
            f"{progress.waiting} waiting, {self.failed} failed, {duration(spent)} so far{left}"
        )


def said(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{name_of(outcome.job)}: FAILED ({outcome.error})"
    part = "test" if "accuracy" in outcome.result else "validation"
    accuracy = outcome.result["accuracy" if part == "test" else "val_accuracy"]
    seconds = outcome.result["train_seconds"]
    return f"{name_of(outcome.job)}: {part} accuracy {accuracy:.4f}, {seconds:.0f} s"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes // 60} h {minutes % 60:02} min"


# --- results ------------------------------------------------------------------------------


def write_results(
    name: str,
    study: Study,
    finished: Sequence[tuple[Trial, Mapping[str, Any], str]],
    committed: Params,
) -> None:
    """Write the study's CSV, JSON and page, and print its table."""
    rows = [row(trial, result, key, committed) for trial, result, key in finished]
    columns = list(dict.fromkeys(key for line in rows for key in line))
    write_csv(RESULTS / f"{name}.csv", [{c: line.get(c, "") for c in columns} for line in rows])
    found = cells([(trial, result) for trial, result, _ in finished], committed)
    write_json(RESULTS / f"{name}.json", found)
    write_text(RESULTS / f"{name}.html", page(name, study, found, rows))
    write_bytes(RESULTS / f"{name}.png", overview(study, found, rows))
    part = "test" if study.evaluate == "test" else "validation"
    counts = [cell["n"] for cell in found]
    seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    print(f"\n{part} accuracy, %, mean ± standard deviation over {seeds} seeds:\n")
    print(table(study, found), *verdicts(found), sep="\n")
    print(f"wrote {RESULTS / name}.csv, .json, .html and .png")


def report_missing(failures: Sequence[Outcome], jobs: Sequence[Job]) -> None:
    """End with what is missing, and why; return where nothing is."""
    errors = {outcome.job.key: outcome for outcome in failures}
    lost = [job for job in jobs if not path_of(job.key).exists()]
    for job in lost:
        path = path_of(job.key)
        if outcome := errors.get(job.key):
            why = f"{outcome.error} ({outcome.attempts} attempts; {path.with_suffix('.log')})"
        else:
            why = f"{path} was there, and is gone"
        print(f"missing: {name_of(job)}: {why}", file=sys.stderr)
    if lost:
        raise StageError(f"{len(lost)} of {len(jobs)} trials are missing; run the study again")
