"""Search a recipe for each model on validation images.

    python -m studies.engine.search mnist

`studies/search.yaml` holds the settings to choose from, the same for all models. docs/method.md
states the rules. Optuna's TPE sampler (Bergstra et al., 2011) proposes a batch of trials per model
from the results so far. Ray trains the batches of all models together. The best trials of each
model are then trained with further seeds. The search never sees the test set.

Finished trials are saved in `studies/trials/`, like those of a study. Proposals depend only on the
seed and on earlier results, so the same command continues an interrupted search: the sampler
proposes the same trials again, and those that are saved are not trained again. Writes
`studies/results/search_DATASET.csv` (one row per training) and `.json` (the recipe of each model,
the finalists and the importance of each setting).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.cli import StageError, run
from stages.common.files import read_json, write_csv, write_json
from stages.common.overrides import with_overrides
from stages.common.params import Count, Section, Seed, parse_params, read_yaml
from stages.datasets.catalog import load_dataset
from stages.training.runtime import choose_threads, configure
from studies.engine import driver
from studies.engine.__main__ import RESUME
from studies.engine.cost import Cost, training_seconds
from studies.engine.grid import Trial
from studies.engine.trial import Job

SEARCH = Path("studies/search.yaml")
RANDOM_TRIALS = 8  # proposed at random before the sampler uses results
DIVERGED = "training diverges"  # part of the message of `loop.check_convergence`

Choice = dict[str, Any]  # a value for each key of the space


class Search(Section):
    """The file `studies/search.yaml`."""

    epochs: Count
    seed: Seed
    trials: Count
    batch: Count
    finalists: Count
    finalist_seeds: list[Seed]
    cpus: Count
    space: dict[str, list[Any]]
    flip: dict[str, list[bool]]
    architectures: dict[str, dict[str, dict[str, Any]]]
    today: dict[str, dict[str, Choice]]


@dataclass
class Trained:
    """A training of the search: trial `number` (from 1) of a model, with one seed.

    `result` is what `trial.run_trial` returns, or None if the training diverged.
    """

    number: int
    model: str
    choice: Choice
    seed: int
    key: str
    result: dict[str, Any] | None

    @property
    def accuracy(self) -> float:
        return self.result["val_accuracy"] if self.result else 0.0


def main() -> None:
    search = Search.model_validate(read_yaml(SEARCH))
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.search", description="Search the recipes of a dataset."
    )
    parser.add_argument("dataset", choices=list(search.today))
    parser.add_argument("--yes", action="store_true", help="start without asking")
    arguments = parser.parse_args()
    find_recipes(search, arguments.dataset, arguments.yes)


def find_recipes(search: Search, dataset: str, yes: bool) -> None:
    """Run what is missing of a search, and write its results."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise StageError(
            "searches need Optuna, which is not installed: `make search` installs it, or "
            "pip install --require-hashes -r studies/requirements.txt"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train = functools.partial(train_missing, search, dataset, yes)
    samplers = {model: new_sampler(search, dataset, model) for model in search.architectures}
    found: dict[str, list[Trained]] = {model: [] for model in samplers}
    for first in range(1, search.trials + 1, search.batch):
        numbers = range(first, min(first + search.batch, search.trials + 1))
        asked = [(model, n, samplers[model].ask()) for model in samplers for n in numbers]
        wanted = [
            (n, model, suggested(trial, search, dataset, model), search.seed)
            for model, n, trial in asked
        ]
        for (model, _, trial), trained in zip(asked, train(wanted, first - 1), strict=True):
            samplers[model].tell(trial, trained.accuracy)
            found[model].append(trained)
    finals = train(
        [
            (trained.number, model, trained.choice, seed)
            for model, each in found.items()
            for trained in best(each, search.finalists)
            for seed in search.finalist_seeds
        ],
        search.trials,
    )
    write_results(search, dataset, found, finals, samplers)


def new_sampler(search: Search, dataset: str, model: str) -> Any:
    """Return an Optuna study for a model, whose first trial is today's recipe."""
    import optuna

    sampler = optuna.samplers.TPESampler(
        seed=search.seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(
        {
            key: value if key == "architecture" else options(search, dataset)[key].index(value)
            for key, value in todays(search, dataset, model).items()
        }
    )
    return study


def options(search: Search, dataset: str) -> dict[str, list[Any]]:
    """Return the ordered values of each key of the space, without the architecture."""
    flips = {"flip": search.flip[dataset]}
    return search.space | {key: values for key, values in flips.items() if len(values) > 1}


def todays(search: Search, dataset: str, model: str) -> Choice:
    """Return the recipe that a model had before the search, as a choice."""
    usual = dict.fromkeys(options(search, dataset), 0) | {"batch_size": 256, "warmup": 0.25}
    return usual | search.today[dataset][model]


def suggested(trial: Any, search: Search, dataset: str, model: str) -> Choice:
    """Return the choice that an Optuna trial proposes."""
    choice = {
        key: values[trial.suggest_int(key, 0, len(values) - 1)]
        for key, values in options(search, dataset).items()
    }
    names = list(search.architectures[model])
    return choice | {"architecture": trial.suggest_categorical("architecture", names)}


def recipe(search: Search, model: str, choice: Choice) -> dict[str, Any]:
    """Return the settings of a model's section that a choice stands for."""
    values = {key: value for key, value in choice.items() if key != "architecture"}
    return {"flip": False} | search.architectures[model][choice["architecture"]] | values


def planned(search: Search, dataset: str, model: str, choice: Choice, seed: int) -> Trial:
    """Return the trial of a choice with a seed."""
    shared = {
        "dataset": dataset,
        "epochs": search.epochs,
        "seed": seed,
        "train.threads": search.cpus,
    }
    own = {f"{model}.{key}": value for key, value in recipe(search, model, choice).items()}
    params = parse_params(with_overrides(driver.committed_params(), shared | own))
    cell = {"dataset": dataset, "model": model, "epochs": search.epochs}
    return Trial(params, model, shared | own, cell)


def train_missing(
    search: Search,
    dataset: str,
    yes: bool,
    wanted: Sequence[tuple[int, str, Choice, int]],
    done: int,
) -> list[Trained]:
    """Train the trials in `wanted` that have no saved result.

    Parameters
    ----------
    yes
        Without it, ask the user before the search trains for the first time.
    wanted
        Number, model, choice and seed of each trial.
    done
        Number of finished trials per model.

    Raises
    ------
    StageError
        A training failed, and not because it diverged.
    """
    trials = [planned(search, dataset, model, choice, seed) for _, model, choice, seed in wanted]
    jobs, arrays = driver.prepare(trials, "val")
    missing = {job.key: job for job in jobs if not driver.path_of(job.key).exists()}
    if missing:
        driver.check_cores(search.cpus)
        images = len(arrays[driver.data_key(jobs[0].params)][1])
        if not yes and not done:
            estimate(search, images).confirm()
        failures = driver.run_missing(list(missing.values()), arrays, search.cpus, 0.0)
        driver.report_missing(jobs, failures, allowed=DIVERGED)
    return [
        Trained(number, model, choice, seed, job.key, result_of(job))
        for (number, model, choice, seed), job in zip(wanted, jobs, strict=True)
    ]


def result_of(job: Job) -> dict[str, Any] | None:
    path = driver.path_of(job.key)
    return read_json(path)["result"] if path.exists() else None


def estimate(search: Search, images: int) -> Cost:
    """Return the cost of a whole search on a training set of `images` images."""
    each = search.trials + search.finalists * len(search.finalist_seeds)
    work = [(model, search.epochs * images) for model in search.architectures] * each
    return Cost(len(work), 0, training_seconds(work, driver.TRIALS, search.cpus))


def best(trained: Sequence[Trained], count: int) -> list[Trained]:
    """Return the `count` best distinct trials. Of equal accuracies, the earlier trial is better."""
    distinct = {each.key: each for each in reversed(trained) if each.result}
    return sorted(distinct.values(), key=lambda e: (-e.accuracy, e.number))[:count]


def multiply_adds(trial: Trial) -> int:
    """Return the multiply-adds of one image's forward pass through a trial's model."""
    configure(choose_threads(1, batch_size=1, batch_norm=False), trial.params.seed)
    from stages.evaluation import counting
    from stages.models import build

    data = load_dataset(trial.params.dataset, trial.params.prepare)
    shape = data.x_train.shape[1:]
    return counting.inference(build(trial.model, shape, len(data.class_names), trial.section))


def choose(finals: Sequence[Trained], costs: Mapping[int, int]) -> dict[str, Any]:
    """Choose among the finalists of a model.

    Parameters
    ----------
    finals
        All trainings of the finalists.
    costs
        The multiply-adds per image of each finalist, by trial number.

    Returns
    -------
    dict
        ``finalists``: for each trial number the mean and standard deviation of the validation
        accuracy over the seeds, and ``multiply_adds``. ``tied``: the numbers of the trials whose
        mean is within one standard error of the best one. ``chosen``: the number of the tied trial
        with the fewest multiply-adds, and of several, the one with the best mean.
    """
    by_number: dict[int, list[Trained]] = {}
    for trained in finals:
        by_number.setdefault(trained.number, []).append(trained)
    finalists = {}
    for number, each in by_number.items():
        accuracies = np.array([trained.accuracy for trained in each])
        finalists[number] = {
            "n": len(each),
            "val_accuracy_mean": float(accuracies.mean()),
            "val_accuracy_std": float(accuracies.std(ddof=1)),
            "multiply_adds": costs[number],
        }
    first = max(finalists.values(), key=lambda entry: entry["val_accuracy_mean"])
    error = first["val_accuracy_std"] / first["n"] ** 0.5
    tied = [
        number
        for number, entry in finalists.items()
        if entry["val_accuracy_mean"] >= first["val_accuracy_mean"] - error
    ]
    chosen = min(tied, key=lambda n: (costs[n], -finalists[n]["val_accuracy_mean"]))
    return {"finalists": finalists, "tied": tied, "chosen": chosen}


def importances(study: Any) -> dict[str, float]:
    """Return the share of the accuracy's variance that each setting explains (fANOVA).

    Source: Hutter et al. (2014), as in Optuna. Sums to 1.
    """
    import optuna

    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=1)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(value) for key, value in found.items()}


def write_results(
    search: Search,
    dataset: str,
    found: Mapping[str, Sequence[Trained]],
    finals: Sequence[Trained],
    studies: Mapping[str, Any],
) -> None:
    """Write the CSV and JSON of a search, and print the chosen recipes."""
    rows = [
        {
            "dataset": dataset,
            "model": trained.model,
            "trial": trained.number,
            "seed": trained.seed,
            "val_accuracy": trained.accuracy if trained.result else "",
            "val_loss": trained.result["val_loss"] if trained.result else "",
            "train_seconds": trained.result["train_seconds"] if trained.result else "",
            "parameters": trained.result["parameters"] if trained.result else "",
            **trained.choice,
            "key": trained.key,
        }
        for trained in [*(each for model in found.values() for each in model), *finals]
    ]
    name = driver.RESULTS / f"search_{dataset}"
    write_csv(name.with_suffix(".csv"), rows)
    chosen = {}
    for model, trials in found.items():
        own = [trained for trained in finals if trained.model == model]
        costs = {
            trained.number: multiply_adds(
                planned(search, dataset, model, trained.choice, trained.seed)
            )
            for trained in own
        }
        choice = choose(own, costs)
        settings = recipe(search, model, trials[choice["chosen"] - 1].choice)
        chosen[model] = {
            "trials": len(trials), **choice, "recipe": settings,
            "importance": importances(studies[model]),
        }  # fmt: skip
        final = choice["finalists"][choice["chosen"]]
        print(
            f"{model}: trial {choice['chosen']}, validation accuracy "
            f"{100 * final['val_accuracy_mean']:.2f} ± {100 * final['val_accuracy_std']:.2f} % "
            f"(n = {final['n']}), {settings}"
        )
    write_json(name.with_suffix(".json"), {"dataset": dataset, "epochs": search.epochs} | chosen)
    print(f"wrote {name}.csv and .json; put the recipes into params.yaml or recipes/")


if __name__ == "__main__":
    run(main, RESUME)
