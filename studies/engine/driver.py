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
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from stages.common.cli import StageError
from stages.common.files import read_json, write_bytes, write_csv, write_json, write_text
from stages.common.git import GitError, git
from stages.common.params import PARAMS_FILE, Params, parse_params, parse_yaml, read_yaml
from stages.datasets.catalog import load_dataset
from stages.datasets.splits import manifest, split
from studies.engine.cost import Cost, count_recorded, duration, training_seconds
from studies.engine.grid import Study, Trial, read_study, trials
from studies.engine.page import overview, page, verdicts
from studies.engine.pool import Outcome, connected, run_jobs
from studies.engine.summary import cells, row, table
from studies.engine.trial import Job, make_job, run_trial

TRIALS = Path("studies/trials")
RESULTS = Path("studies/results")
STATUS_EVERY = 600  # seconds between two status lines if the output is not a terminal

Arrays = dict[str, list[np.ndarray]]  # by `data_key`: x and y of each part that a study may see


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine", description="Run the missing trials of a study."
    )
    parser.add_argument("study", type=Path, help="the study file, studies/NAME.yaml")
    parser.add_argument("--cpus", type=int, help="cores per trial, instead of the file's; 0 = all")
    parser.add_argument("--yes", action="store_true", help="start a long study without asking")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--list", action="store_true", help="only say how much there is to train")
    only.add_argument("--results", action="store_true", help="only write results; train nothing")
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    document = committed_params()
    cpus = cores_per_trial(study, arguments.cpus)
    planned = trials(study, document, cpus)
    jobs, arrays = prepare(planned, study.evaluate)
    plan = list(zip(planned, jobs, strict=True))
    missing = {job.key: (trial, job) for trial, job in plan if not path_of(job.key).exists()}
    name = study_name(arguments.study)
    done = sum(job.key not in missing for job in jobs)
    print(f"{name}: {len(jobs)} trials, {done} of them done", flush=True)
    failures = {}
    if missing and not arguments.results:
        lacking, todo = zip(*missing.values(), strict=True)
        recorded = count_recorded(RESULTS / f"{name}.csv", lacking)
        work = [(j.model, j.params["epochs"] * len(arrays[data_key(j.params)][1])) for j in todo]
        cost = Cost(len(todo), recorded, training_seconds(work, TRIALS, cpus))
        if arguments.list:
            print(cost)
        else:
            check_cores(cpus)
            if not arguments.yes:
                cost.confirm()
            failures = run_missing(todo, arrays, cpus, study.gpus)
    if arguments.list:
        return
    there = [(trial, path_of(job.key), job.key) for trial, job in plan]
    finished = [(t, read_json(path)["result"], key) for t, path, key in there if path.exists()]
    if finished:
        write_results(name, study, finished, parse_params(document))
    if not arguments.results:
        report_missing(jobs, failures)


def committed_params() -> Any:
    """Return `params.yaml` as last committed, or without git as it is.

    An experiment that changed the file then changes no study.
    """
    try:
        return parse_yaml(git("show", f"HEAD:./{PARAMS_FILE}").encode(), PARAMS_FILE)
    except GitError:
        return read_yaml(PARAMS_FILE)


def study_name(path: Path) -> str:
    """Return a study's name: its path within `studies/`, without the suffix."""
    path = path.resolve().with_suffix("")
    folder = TRIALS.parent.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.stem


def path_of(key: str) -> Path:
    return TRIALS / f"{key}.json"


def cores_per_trial(study: Study, wanted: int | None) -> int:
    """Return the cores of a trial: `wanted` (0 = all of this machine), or else the study file's."""
    if os.environ.get("RAY_ADDRESS") and wanted == 0:
        raise StageError("--cpus 0 is for one machine: say how many cores of a node a trial gets")
    return study.cpus if wanted is None else wanted or joblib.cpu_count()


def check_cores(cpus: int) -> None:
    """Raise StageError if this machine is to run the trials and has too few cores."""
    cores = joblib.cpu_count()
    if not os.environ.get("RAY_ADDRESS") and cpus > cores:
        raise StageError(
            f"each trial needs {cpus} cores, but this machine has {cores}; lower `cpus:` in the "
            f"study file or pass --cpus {cores}"
        )


def prepare(planned: Sequence[Trial], evaluate: str) -> tuple[list[Job], Arrays]:
    """Return the job of each trial, and the datasets, split as the stage `prepare` does it."""
    arrays: Arrays = {}
    manifests: dict[str, dict[str, Any]] = {}
    jobs = []
    for trial in planned:
        params = trial.params.model_dump()
        key = data_key(params)
        if key not in arrays:
            dataset = load_dataset(params["dataset"], trial.params.prepare)
            parts = split(dataset, trial.params.prepare)
            if evaluate == "val":
                del parts["test"]  # a search must not see it
            manifests[key] = manifest(params["dataset"], dataset.class_names, parts)
            arrays[key] = [array for part in parts.values() for array in part]
        jobs.append(make_job(params, trial.model, evaluate, manifests[key]))
    return jobs, arrays


def data_key(params: Mapping[str, Any]) -> str:
    return f"{params['dataset']} {params['prepare']}"


# --- running ------------------------------------------------------------------------------


def run_missing(jobs: Sequence[Job], arrays: Arrays, cpus: int, gpus: float) -> dict[str, Outcome]:
    """Run jobs, save each result as it arrives, and return the failures by key.

    Prints a line for each finished trial, and a status line, which stays last in a terminal.
    """
    failures: dict[str, Outcome] = {}
    epochs = [job.params["epochs"] for job in jobs]
    ended, ended_epochs, next_status, started = 0, 0, 0.0, time.monotonic()
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"connecting to Ray ({os.environ.get('RAY_ADDRESS') or 'on this machine'})", flush=True)
    with connected(sum(array.nbytes for each in arrays.values() for array in each)):
        for progress in run_jobs(
            jobs, run_trial, lambda job: arrays[data_key(job.params)], cpus=cpus, gpus=gpus
        ):
            for outcome in progress.ended:
                save(outcome)
                if outcome.result is None:
                    failures[outcome.job.key] = outcome
                ended += 1
                ended_epochs += outcome.job.params["epochs"]
                print(f"{clear}[{ended}/{len(jobs)}] {outcome_text(outcome)}", flush=True)
            for line in progress.stuck:
                print(f"{clear}{line}", flush=True)
            spent = time.monotonic() - started
            if clear or ended == len(jobs) or spent >= next_status:
                next_status = spent + STATUS_EVERY
                left = ""
                if ended_epochs and ended < len(jobs):
                    seconds = spent * (sum(epochs) - ended_epochs) / ended_epochs
                    left = f", about {duration(seconds)} left"
                waiting = "waiting" if progress.running else "waiting for a node with free cores"
                print(
                    f"{clear}{ended - len(failures)} done, {progress.running} running, "
                    f"{progress.waiting} {waiting if progress.waiting else 'waiting'}, "
                    f"{len(failures)} failed, {duration(spent)} so far{left}",
                    end="" if clear and ended < len(jobs) else "\n",
                    flush=True,
                )
    return failures


def save(outcome: Outcome) -> None:
    """Write a trial's log and, unless it failed, its result."""
    path = path_of(outcome.job.key)
    ended = f"failed: {outcome.error}" if outcome.error else "finished"
    log = f"{job_text(outcome.job)}\n{outcome.log}{ended} (attempt {outcome.attempts})\n"
    write_text(path.with_suffix(".log"), log)
    if outcome.result is not None:
        facts = {"job": vars(outcome.job), "node": outcome.node, "result": outcome.result}
        write_json(path, facts)


def job_text(job: Job) -> str:
    params = job.params
    return f"{params['dataset']} {job.model} epochs={params['epochs']} seed={params['seed']}"


def outcome_text(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{job_text(outcome.job)}: FAILED ({outcome.error})"
    test = "accuracy" in outcome.result
    accuracy = outcome.result["accuracy" if test else "val_accuracy"]
    return (
        f"{job_text(outcome.job)}: {'test' if test else 'validation'} accuracy "
        f"{100 * accuracy:.2f} %, {outcome.result['train_seconds']:.0f} s"
    )


# --- results ------------------------------------------------------------------------------


def write_results(
    name: str,
    study: Study,
    finished: Sequence[tuple[Trial, Mapping[str, Any], str]],
    committed: Params,
) -> None:
    """Write the study's CSV, JSON, page and figure, and print its table."""
    rows = [row(trial, result, key, committed) for trial, result, key in finished]
    columns = list(dict.fromkeys(key for line in rows for key in line))
    write_csv(RESULTS / f"{name}.csv", [{c: line.get(c, "") for c in columns} for line in rows])
    found = cells([(trial, result) for trial, result, _ in finished], committed)
    write_json(RESULTS / f"{name}.json", found)
    write_text(RESULTS / f"{name}.html", page(name, study, found, rows))
    write_bytes(RESULTS / f"{name}.png", overview(study, found, rows))
    part = "test" if study.evaluate == "test" else "validation"
    counts = " to ".join(dict.fromkeys(str(f(cell["n"] for cell in found)) for f in (min, max)))
    print(f"\n{part} accuracy in %, mean ± standard deviation, number of seeds: {counts}\n")
    print(table(study, found), *verdicts(found), sep="\n")
    print(f"wrote {RESULTS / name}.csv, .json, .html and .png")


def report_missing(jobs: Sequence[Job], failures: Mapping[str, Outcome], allowed: str = "") -> None:
    """Print which trials are missing and why, and raise StageError if there are any.

    A trial may be missing if its error contains `allowed`.
    """
    errors = {key: outcome.error for key, outcome in failures.items()}
    fine = {key for key, error in errors.items() if allowed and allowed in error}
    lost = [job for job in jobs if job.key not in fine and not path_of(job.key).exists()]
    for job in lost:
        path = path_of(job.key)
        if outcome := failures.get(job.key):
            why = f"{outcome.error} ({outcome.attempts} attempts; {path.with_suffix('.log')})"
        else:
            why = f"{path} has disappeared since the study started"
        print(f"missing: {job_text(job)}: {why}", file=sys.stderr)
    if lost:
        raise StageError(
            f"{len(lost)} of {len(jobs)} trials are missing; run the same command again"
        )
