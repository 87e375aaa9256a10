"""Summarize a study's trials: one row per trial, one cell per configuration.

A configuration is a set of trials that differ in the seed only. Intervals and tests are over seeds:
they say what retraining would give on the same test images, not what other test images would give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from stages.common.overrides import exp_run_command, flatten
from stages.common.params import Params
from stages.common.versions import LIBRARIES, RESULTS_VERSION
from stages.evaluation import CONFIDENCE
from stages.evaluation.significance import holm
from stages.reporting.table import markdown, threads_text
from stages.reporting.targets import Published, missed_target, published, settings_digest
from studies.engine.grid import Study, Trial, cell_text, changed_settings, concerns

Cell = Mapping[str, Any]  # as returned by `cells`
FIGURES = ("accuracy", "loss", "macro_f1", "errors", "val_accuracy", "val_loss")
COSTS = ("parameters", "epochs_run", "train_seconds", "seconds_per_epoch", "processor")
KEYS = ("dataset", "model", "epochs")  # of every cell; variant and further grid keys follow
PAIRED = ("model", "variant", "epochs")  # compared cells differ in one of these
NOT_RECIPE = ("dataset", "epochs", "seed", "train.threads")
SAME = 1e-9  # accuracies that differ by less are equal: this is less than one image


def row(trial: Trial, result: Mapping[str, Any], key: str, committed: Params) -> dict[str, Any]:
    """Return a trial's row of the CSV. A search has no test figures."""
    place = {key: trial.cell[key] for key in KEYS}
    return {
        **place,
        "seed": trial.params.seed,
        **{key: value for key, value in trial.cell.items() if key not in place},
        **{key: result[key] for key in (*FIGURES, *COSTS) if key in result},
        "threads": threads_text(result["threads"]),
        "key": key,
        "command": command(trial, committed),
    }


def command(trial: Trial, committed: Params) -> str:
    """Return the `dvc exp run` line that repeats a trial as an experiment.

    It sets all that the study sets, even where `committed` agrees, so it survives changes there.
    """
    differing = dict(changed_settings(trial, committed))
    return exp_run_command({
        key: value
        for key, value in flatten(trial.params.model_dump()).items()
        if key in differing or (key in trial.settings and concerns(trial, key))
    })  # fmt: skip


def cells(
    finished: Sequence[tuple[Trial, Mapping[str, Any]]], committed: Params
) -> list[dict[str, Any]]:
    """Return the configurations of a study: means over seeds, their spread, paired comparisons.

    Returns
    -------
    list of dict
        The configuration's keys (``dataset, model, epochs``, ``variant`` and further grid keys);
        ``n``, the number of trials; ``accuracy_mean``, ``accuracy_std``, ``accuracy_interval``
        (95 %, Student's t; None with one seed), and the same for the other metrics;
        ``train_seconds_median``; ``recipe``, the settings that differ from ``committed``;
        ``machines``; ``against``, the paired comparisons.
    """
    groups: dict[str, list[tuple[Trial, Mapping[str, Any]]]] = defaultdict(list)
    for trial, result in finished:
        groups[cell_text(trial.cell)].append((trial, result))
    found = [_cell(members, committed) for members in groups.values()]
    by_seed = [
        {trial.params.seed: result for trial, result in members} for members in groups.values()
    ]
    for differing in PAIRED:
        families: dict[str, list[int]] = defaultdict(list)  # alike in every other key
        for i, cell in enumerate(found):
            rest = {key: value for key, value in identity(cell).items() if key != differing}
            families[cell_text(rest)].append(i)
        for family in families.values():
            _compare(found, by_seed, family, differing)
    return found


def _cell(members: Sequence[tuple[Trial, Mapping[str, Any]]], committed: Params) -> dict[str, Any]:
    """Return one configuration, without comparisons."""
    trial, first = members[0]
    results = [result for _, result in members]
    cell = {**trial.cell, "n": len(members)}
    for figure in FIGURES:
        if figure in first:
            cell |= spread(figure, np.array([result[figure] for result in results], float))
    return cell | {
        "parameters": first["parameters"],
        "train_seconds_median": float(np.median([result["train_seconds"] for result in results])),
        "recipe": {k: v for k, v in changed_settings(trial, committed) if k not in NOT_RECIPE},
        "settings": settings_digest(trial.model, trial.params.model_dump()),
        "libraries": common_versions(results),
        "results_version": RESULTS_VERSION,  # part of the trials' keys
        "machines": sorted({result["processor"] for result in results}),
        "seeds": [trial.params.seed for trial, _ in members],
        "against": [],
    }


def common_versions(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the versions of the libraries that trained the trials, "mixed" if they differ."""
    found = {name: {result["versions"][name] for result in results} for name in LIBRARIES}
    return {name: each.pop() if len(each) == 1 else "mixed" for name, each in found.items()}


def spread(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1) and Student's 95 % interval of the mean."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {f"{name}_mean": mean, f"{name}_std": None, f"{name}_interval": None}
    deviation = float(values.std(ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / n**0.5
    return {
        f"{name}_mean": mean,
        f"{name}_std": deviation,
        f"{name}_interval": [mean - reach, mean + reach],
    }


def _compare(
    found: Sequence[dict[str, Any]],
    by_seed: Sequence[Mapping[int, Mapping[str, Any]]],
    family: Sequence[int],
    differing: str,
) -> None:
    """Add the paired comparisons of a family of cells, with Holm's correction for their number."""
    figure = figure_of(found)
    made = []
    for a, b in combinations(family, 2):
        seeds = sorted(by_seed[a].keys() & by_seed[b].keys())
        if len(seeds) > 1:
            differences = [by_seed[a][s][figure] - by_seed[b][s][figure] for s in seeds]
            made.append((a, b, paired(np.array(differences))))
    corrected = holm([entry["p"] for _, _, entry in made])
    for (a, b, entry), p_holm in zip(made, corrected, strict=True):
        place = {"key": differing, "value": found[b][differing], "figure": figure}
        found[a]["against"].append(place | entry | {"p_holm": p_holm})


def paired(differences: np.ndarray) -> dict[str, Any]:
    """Return the mean difference, its 95 % interval and the p-value of a paired t-test over seeds.

    If all differences are equal, their variance is 0 and a t-test would report p = 0. Then there is
    no interval (None), and p is that of Fisher's randomization test (1935) on the signs.
    """
    summary = spread("difference", differences)
    n, mean = len(differences), summary["difference_mean"]
    alike = np.ptp(differences) < SAME
    if alike:
        p = 1.0 if abs(mean) < SAME else 2.0 ** (1 - n)
    else:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
    interval = None if alike else summary["difference_interval"]
    return {"n": n, "difference": mean, "interval": interval, "p": p}


def compared(one: Cell, other: Cell) -> tuple[float, list[float] | None, float] | None:
    """Return the paired difference of two cells, its interval and the corrected p-value.

    None if the two were not compared.
    """
    for a, b, sign in ((one, other, 1), (other, one, -1)):
        for entry in a["against"]:
            if identity(a) | {entry["key"]: entry["value"]} == identity(b):
                interval = entry["interval"] and sorted(sign * end for end in entry["interval"])
                return sign * entry["difference"], interval, entry["p_holm"]
    return None


# --- tables -------------------------------------------------------------------------------


def figure_of(cells: Sequence[Cell]) -> str:
    """Return the name of the compared metric: test or, in a search, validation accuracy."""
    return "accuracy" if "accuracy_mean" in cells[0] else "val_accuracy"


def identity(cell: Cell) -> dict[str, Any]:
    """Return the keys and values that define a configuration."""
    return {key: cell[key] for key in list(cell)[: list(cell).index("n")]}


def settings_of(cell: Cell) -> dict[str, Any]:
    """Return what defines a configuration besides dataset, model and number of epochs."""
    return {key: value for key, value in identity(cell).items() if key not in KEYS}


def reported(study: Study, cells: Sequence[Cell], dataset: str) -> list[Published]:
    """Return the results that others reported for a dataset.

    The study file lists them, or else studies/published.yaml.
    """
    if study.published is not None:
        return [entry for entry in study.published if entry.dataset == dataset]
    return published(dataset, [cell["epochs"] for cell in cells if cell["dataset"] == dataset])


def comparable(cell: Cell, entries: Sequence[Published]) -> list[Published]:
    """Return what others reported for the dataset, model and number of epochs of a cell."""
    return [
        entry
        for entry in entries
        if (entry.dataset, entry.model) == (cell["dataset"], cell["model"])
        and entry.epochs in (None, cell["epochs"])
    ]


def table(study: Study, cells: Sequence[Cell]) -> str:
    """Return the mean accuracies as a Markdown table with one column per model.

    Each entry is mean ± standard deviation over the seeds in percent, with n if the cell has fewer
    seeds than others, and with the target if the mean of the committed recipe misses it. The last
    column has what others reported for these epochs; * marks an unstated number of epochs.
    """
    test = study.evaluate == "test"
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    extra = list(dict.fromkeys(key for cell in cells for key in settings_of(cell)))
    most = max(cell["n"] for cell in cells)
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        place = (cell["dataset"], *(str(cell.get(key, "")) for key in extra), str(cell["epochs"]))
        line = lines.setdefault(place, dict.fromkeys([*models, "reported"], ""))
        mean, deviation = (cell[f"{figure_of(cells)}_{part}"] for part in ("mean", "std"))
        text = f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")
        text += f" (n = {cell['n']})" if cell["n"] < most else ""
        if test and not settings_of(cell):
            target = missed_target(cell["dataset"], cell["model"], cell["epochs"], mean)
            text += f" (below {100 * target:.2f})" if target else ""
        line[cell["model"]] = text
        entries = comparable(cell, reported(study, cells, cell["dataset"]))
        figures = [f"{e.model} {100 * e.accuracy:.2f}{'' if e.epochs else '*'}" for e in entries]
        line["reported"] = ", ".join(filter(None, [line["reported"], *figures]))
    rows = [["dataset", *extra, "epochs", *models, "reported"]]
    rows += [[*place, *line.values()] for place, line in lines.items()]
    numeric = [False] * (1 + len(extra)) + [True] * (1 + len(models)) + [False]
    shown = slice(None if test else -1)  # nobody reported validation accuracies
    return markdown(
        [[text.replace("|", "\\|") for text in row[shown]] for row in rows], numeric[shown]
    )
