"""What the trials of a study come to: a row a trial, and a cell for trials that differ in the seed.

Intervals and tests are over seeds: they tell what training again would give on the same test
images, not what other test images would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from stages.common.overrides import exp_run_command, flatten
from stages.common.params import Params
from stages.evaluation import CONFIDENCE
from stages.evaluation.significance import holm
from stages.reporting.targets import TARGETS, Published, Target, published, read_entries
from studies.engine.grid import Study, Trial, changed_settings, concerns, place_of

FIGURES = ("accuracy", "loss", "macro_f1", "errors", "val_accuracy", "val_loss")
COSTS = ("parameters", "epochs_run", "train_seconds", "seconds_per_epoch", "processor")
MACHINE_KEYS = ("train.threads",)  # settings that say how a trial ran, not what it trained
PAIRED = ("model", "variant", "epochs")  # what two cells may differ in to be compared
SAME = 1e-9  # accuracies that differ by less are equal but for rounding: an image weighs more
KEYS = ("dataset", "model", "epochs")  # of every cell; its variant and the grid's others follow


def row(trial: Trial, result: Mapping[str, Any], key: str, committed: Params) -> dict[str, Any]:
    """Return a trial's line of the CSV; a search has no figures of the test set."""
    place = {key: trial.cell[key] for key in KEYS}
    others = {key: value for key, value in trial.cell.items() if key not in place}
    threads = result["threads"]
    return {
        **place,
        "seed": trial.params.seed,
        **others,
        **{key: result[key] for key in (*FIGURES, *COSTS) if key in result},
        "threads": f"{threads['inter_op']}×{threads['intra_op']}/{threads['batch_parts']}",
        "key": key,
        "command": command(trial, committed),
    }


def command(trial: Trial, committed: Params) -> str:
    """Return the `dvc exp run` line that repeats a trial as an experiment.

    It has what the study sets too where `params.yaml` agrees, so as to hold when that changes.
    """
    differing = dict(changed_settings(trial, committed))
    line = {
        key: value
        for key, value in flatten(trial.params.model_dump()).items()
        if key in differing or (key in trial.settings and concerns(trial, key))
    }
    return exp_run_command(line)


def cells(
    finished: Sequence[tuple[Trial, Mapping[str, Any]]], committed: Params
) -> list[dict[str, Any]]:
    """Return the cells of a study: means over seeds, their spread, and paired comparisons.

    Returns
    -------
    list of dict
        The cell's keys (``dataset, model, epochs``, ``variant`` and the grid's others); ``n``;
        ``accuracy_mean``, ``accuracy_std``, ``accuracy_interval`` (95 %, Student's t; None with
        one seed), the same of the other figures; ``train_seconds_median``; ``recipe``, what differs
        from the committed parameters; ``machines``; ``against``, the paired comparisons.
    """
    groups: dict[str, list[tuple[Trial, Mapping[str, Any]]]] = defaultdict(list)
    for trial, result in finished:
        groups[place_of(trial.cell)].append((trial, result))
    found = [_cell(members, committed) for members in groups.values()]
    by_seed = [
        {trial.params.seed: result for trial, result in members} for members in groups.values()
    ]
    for one in found:
        one["against"] = []
    for differing in PAIRED:
        for family in _families(found, differing):
            _compare(found, by_seed, family, differing)
    return found


def _cell(members: Sequence[tuple[Trial, Mapping[str, Any]]], committed: Params) -> dict[str, Any]:
    trial, first = members[0]
    recipe = {
        key: value
        for key, value in changed_settings(trial, committed)
        if key not in (*MACHINE_KEYS, "dataset", "epochs", "seed")
    }
    cell = {**trial.cell, "n": len(members)}
    for figure in FIGURES:
        if figure in first:
            values = np.array([result[figure] for _, result in members], float)
            cell |= spread(figure, values)
    return cell | {
        "parameters": first["parameters"],
        "train_seconds_median": float(
            np.median([result["train_seconds"] for _, result in members])
        ),
        "recipe": recipe,
        "machines": sorted({result["processor"] for _, result in members}),
        "seeds": [trial.params.seed for trial, _ in members],
    }


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


def _families(found: Sequence[Mapping[str, Any]], differing: str) -> list[list[int]]:
    """Return groups of cells, by index, that are alike in every key but one."""
    known = {"n", "parameters", "recipe", "machines", "seeds", "against", "train_seconds_median"}
    groups: dict[str, list[int]] = defaultdict(list)
    for i, cell in enumerate(found):
        rest = {
            key: value
            for key, value in cell.items()
            if key not in known | {differing} and not key.startswith(FIGURES)
        }
        groups[place_of(rest)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _compare(
    found: Sequence[dict[str, Any]],
    by_seed: Sequence[Mapping[int, Mapping[str, Any]]],
    family: Sequence[int],
    differing: str,
) -> None:
    """Add paired comparisons over the seeds that two cells share; Holm's correction a family."""
    figure = "accuracy" if "accuracy_mean" in found[family[0]] else "val_accuracy"
    made = []
    for a, b in combinations(family, 2):
        seeds = sorted(by_seed[a].keys() & by_seed[b].keys())
        if len(seeds) < 2:
            continue
        differences = np.array([by_seed[a][s][figure] - by_seed[b][s][figure] for s in seeds])
        made.append((a, b, paired(differences)))
    corrected = holm([entry["p"] for _, _, entry in made])
    for (a, b, entry), p_holm in zip(made, corrected, strict=True):
        place = {"key": differing, "value": found[b][differing], "figure": figure}
        found[a]["against"].append(place | entry | {"p_holm": p_holm})


def paired(differences: np.ndarray) -> dict[str, Any]:
    """Return mean difference, its 95 % interval and the paired t-test's p over seeds.

    Accuracies are counts of images, so that a few seeds may well differ by the same number: no
    spread, of which a t-test would make certainty. Then there is no interval (None), and p is that
    of Fisher's randomization test (1935), in which each difference could have had either sign.
    """
    summary = spread("difference", differences)
    n, mean = len(differences), summary["difference_mean"]
    alike = np.ptp(differences) < SAME
    if alike:
        p = 1.0 if abs(mean) < SAME else 2.0 ** (1 - n)
    else:
        p = float(stats.ttest_1samp(differences, 0).pvalue)
    return {
        "n": n,
        "difference": mean,
        "interval": None if alike else summary["difference_interval"],
        "p": p,
    }


# --- what is shown of them ----------------------------------------------------------------


def settings_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a cell beyond data set, model and epochs: its variant and grid's keys."""
    keys = list(cell)[len(KEYS) : list(cell).index("n")]
    return {key: cell[key] for key in keys}


def varied(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of `settings_of` that any of the cells has: grids may differ in theirs."""
    return list(dict.fromkeys(key for cell in cells for key in settings_of(cell)))


def of_dataset(study: Study, cells: Sequence[Mapping[str, Any]], dataset: str) -> list[Published]:
    """Return what was published for a data set: by the study's file, else by everybody known."""
    if study.published is not None:
        return [entry for entry in study.published if entry.dataset == dataset]
    return published(dataset, [cell["epochs"] for cell in cells if cell["dataset"] == dataset])


def beside(cell: Mapping[str, Any], entries: Sequence[Published]) -> list[Published]:
    """Return the published figures that a cell compares with."""
    return [
        entry
        for entry in entries
        if (entry.dataset, entry.model) == (cell["dataset"], cell["model"])
        and entry.epochs in (None, cell["epochs"])
    ]


def table(study: Study, cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean accuracies as a Markdown table, models side by side.

    Mean ± standard deviation over the seeds in percent, n where a cell has fewer than others; the
    published figures of the same epochs (* of epochs that were not stated); a mean of the committed
    recipe that misses its target in `studies/targets.yaml` says so.
    """
    figure = "accuracy" if study.evaluate == "test" else "val_accuracy"
    targets = {
        (target.dataset, target.model, target.epochs): target.accuracy
        for target in read_entries(TARGETS, Target)
        if study.evaluate == "test"
    }
    datasets = dict.fromkeys(cell["dataset"] for cell in cells)
    known = {dataset: of_dataset(study, cells, dataset) for dataset in datasets}
    most = max(cell["n"] for cell in cells)

    def accuracy(cell: Mapping[str, Any]) -> str:
        text = f"{100 * cell[f'{figure}_mean']:.2f}"
        if cell["n"] > 1:
            text += f" ± {100 * cell[f'{figure}_std']:.2f}"
        if cell["n"] < most:
            text += f" (n = {cell['n']})"
        plain = not settings_of(cell)
        target = targets.get((cell["dataset"], cell["model"], cell["epochs"])) if plain else None
        if target is not None and round(cell[f"{figure}_mean"], 9) < target:
            text += f" (below {100 * target:.2f})"
        return text

    def others(cell: Mapping[str, Any]) -> list[str]:
        return [
            f"{entry.model} {100 * entry.accuracy:.2f}{'' if entry.epochs else '*'}"
            for entry in beside(cell, known[cell["dataset"]])
        ]

    return _side_by_side(cells, accuracy, others if figure == "accuracy" else None)


def costs(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the median seconds of training as a Markdown table, laid out as `table`'s."""
    return _side_by_side(cells, lambda cell: f"{cell['train_seconds_median']:.0f}")


def _side_by_side(
    cells: Sequence[Mapping[str, Any]],
    shown: Callable[[Mapping[str, Any]], str],
    published: Callable[[Mapping[str, Any]], list[str]] | None = None,
) -> str:
    """Lay cells out as a Markdown table: a column a model, a row for all else."""
    models = list(dict.fromkeys(cell["model"] for cell in cells))
    extra = varied(cells)
    lines: dict[str, dict[str, Any]] = {}
    for cell in cells:
        place = [cell["dataset"], *(str(cell.get(key, "")) for key in extra), str(cell["epochs"])]
        line = lines.setdefault(repr(place), {"place": place, "published": []})
        line[cell["model"]] = shown(cell)
        line["published"] += published(cell) if published else []
    header = ["data", *extra, "epochs", *models, *(["published"] if published else [])]
    rows = [header, ["---"] * (1 + len(extra)) + ["--:"] * (1 + len(models)) + ["---"]]
    for line in lines.values():
        told = [line.get(model, "") for model in models]
        rows.append([*line["place"], *told, ", ".join(line["published"])])
    return "".join(
        f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row[: len(header)])} |\n"
        for row in rows
    )
