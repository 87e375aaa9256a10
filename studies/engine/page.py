"""The page of a study: figures, tables and sentences about its configurations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.common.overrides import override_text
from stages.common.params import load_params
from stages.evaluation import SIGNIFICANT
from stages.reporting import figures
from stages.reporting.sentences import counted, joined, p_text, points
from stages.reporting.targets import Published
from stages.reporting.templating import render
from studies.engine.grid import Study
from studies.engine.summary import (
    Cell,
    comparable,
    compared,
    figure_of,
    identity,
    reported,
    settings_of,
)

TEMPLATE = Path(__file__).parent / "templates/study.html.jinja"
LINES = ("-", "--", ":", "-.")  # of the variants, in their order
FILLS = ("full", "left", "bottom", "none")  # of their markers
NAMES = {"accuracy": "test accuracy", "val_accuracy": "validation accuracy"}

Row = Mapping[str, Any]  # as returned by `summary.row`


def page(name: str, study: Study, cells: Sequence[Cell], rows: Sequence[Row]) -> str:
    """Return the page of a study, given its configurations and trials, as HTML."""
    figure = figure_of(cells)
    groups = []
    for dataset, members in by_dataset(cells):
        entries = reported(study, cells, dataset)
        own = [row for row in rows if row["dataset"] == dataset]
        groups.append({
            "dataset": dataset,
            "cells": [
                {**cell, "label": label(cell), "reported": comparable(cell, entries)}
                for cell in members
            ],
            "reported": entries,
            "several": len({cell["epochs"] for cell in members}) > 1,
            "labels": list(dict.fromkeys(map(label, members))),
            "matrix": matrix(members),
            "figures": draw(dataset, members, own, entries),
        })  # fmt: skip
    facts = {
        "name": name,
        "study": study,
        "figure": figure,
        "part": NAMES[figure].split()[0],
        "verdict": verdicts(cells),
        "groups": groups,
        "rows": rows,
        "machines": sorted({machine for cell in cells for machine in cell["machines"]}),
        "trials": sum(cell["n"] for cell in cells),
        "colours": {model: look(model)["color"] for model in models()},
    }
    return render(TEMPLATE, facts, override_text=override_text)


def overview(study: Study, cells: Sequence[Cell], rows: Sequence[Row]) -> bytes:
    """Return the accuracies as one PNG with a panel per dataset. Equal results give equal bytes."""
    groups = by_dataset(cells)
    with figures.styled():
        image = Figure(figsize=(max(8, 5.2 * len(groups)), 4.4))
        axes = image.subplots(1, len(groups), squeeze=False)[0]
        for ax, (dataset, members) in zip(axes, groups, strict=True):
            accuracies(ax, members, rows, reported(study, cells, dataset))
            ax.set_title(dataset)
        figures.legend(image)
        return figures.as_png(image, figures.SMALL_DPI)


def by(key: Callable[[Cell], Any], cells: Sequence[Cell]) -> list[tuple[Any, list[Cell]]]:
    """Group cells by `key`, in the order in which its values first appear."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.items())


def by_dataset(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    return by(lambda cell: cell["dataset"], cells)


def label(cell: Cell) -> str:
    """Return the model of a cell and what else the study varies: `cnn with our recipe`."""
    others = [
        str(value) if key == "variant" else f"{key} {value}"
        for key, value in settings_of(cell).items()
    ]
    return cell["model"] + (f" with {', '.join(others)}" if others else "")


# --- sentences ----------------------------------------------------------------------------


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """Return what a study found, in sentences.

    For each dataset: the best configuration at each number of epochs, then the best number of
    epochs of each configuration.
    """
    figure = figure_of(cells)
    sentences = []
    for dataset, members in by_dataset(cells):
        for epochs, row in by(epochs_of, members):
            best, told = standing(row, figure, label)
            mean = f"mean {NAMES[figure]}"
            what = f"the highest {mean}," if len(row) > 1 else f"a {mean} of"
            sentences.append(f"{dataset}, {epochs}: {label(best)} has {what} {told}")
        for name, line in by(label, members):
            if len(line) > 1:
                best, told = standing(line, figure, epochs_of)
                sentences.append(f"{dataset}, {name}: best after {epochs_of(best)}, {told}")
    return sentences


def matrix(cells: Sequence[Cell]) -> dict[int, dict[str, dict[str, Any]]]:
    """Return cells by number of epochs, then by label.

    In each row ``leads`` marks the highest mean, and those that are not significantly lower.
    """
    rows: dict[int, dict[str, dict[str, Any]]] = {}
    for epochs, row in by(lambda cell: cell["epochs"], cells):
        best = max(row, key=lambda cell: cell[f"{figure_of(cells)}_mean"])
        for cell in row:
            found = compared(best, cell)
            leads = cell is best or bool(found and found[2] >= SIGNIFICANT)
            rows.setdefault(epochs, {})[label(cell)] = {**cell, "leads": leads}
    return dict(sorted(rows.items()))


def epochs_of(cell: Cell) -> str:
    return counted(cell["epochs"], "epoch")


def standing(
    cells: Sequence[Cell], figure: str, name: Callable[[Cell], str]
) -> tuple[Cell, str]:  # fmt: skip
    """Return the best cell, and text: its mean, and which of the others are significantly worse."""
    best = max(cells, key=lambda cell: cell[f"{figure}_mean"])
    spread = f" ± {100 * best[f'{figure}_std']:.2f}" if best["n"] > 1 else ""
    parts = [f"{100 * best[f'{figure}_mean']:.2f}{spread} % (n = {best['n']})"]
    groups: dict[str, list[str]] = {"significantly": [], "not significantly": []}
    for other in cells:
        if found := compared(best, other):
            difference, interval, p = found
            ends = f", {points(interval[0])} to {points(interval[1])}" if interval else ""
            groups["significantly" if p < SIGNIFICANT else "not significantly"].append(
                f"{name(other)} ({points(difference)}{ends}, {p_text(p)})"
            )
    parts += [f"{word} better than {joined(names)}" for word, names in groups.items() if names]
    return best, f"{'; '.join(parts)}."


# --- figures ------------------------------------------------------------------------------


def draw(
    dataset: str, cells: Sequence[Cell], rows: Sequence[Row], entries: Sequence[Published]
) -> dict[str, Markup]:
    """Return the figures of one dataset as SVG: accuracy and cost."""
    several = len({cell["epochs"] for cell in cells}) > 1
    with figures.styled():
        image = Figure(figsize=(8, 5 if several else 1.6 + 0.36 * len(cells)))
        accuracies(image.subplots(), cells, rows, entries)
        figures.legend(image)
        drawn = {
            "accuracy": (image, "mean and 95 % interval over seeds"),
            "cost": (cost(cells, several), "mean accuracy against training time"),
        }
        return {
            key: Markup(figures.as_svg(image, f"{dataset} {key}: {title}"))  # noqa: S704  escaped
            for key, (image, title) in drawn.items()
        }


def accuracies(
    ax: Axes, cells: Sequence[Cell], rows: Sequence[Row], entries: Sequence[Published]
) -> None:
    """Draw the means of one dataset with their intervals, each seed, and reported figures.

    The other axis shows the number of epochs. If there is only one, it ranks the configurations.
    """
    figure = figure_of(cells)
    epochs = sorted({cell["epochs"] for cell in cells})
    horizontal = len(epochs) == 1
    flip = -1 if horizontal else 1  # swaps (position, accuracy)
    ranking = sorted(cells, key=lambda cell: -cell[f"{figure}_mean"])
    groups = by(label, sorted(cells, key=lambda cell: cell["epochs"]))
    width = 0.12 * min(np.diff(epochs), default=0) if len(groups) > 1 else 0
    offsets = np.linspace(-width, width, len(groups))
    for offset, (name, members) in zip(offsets, groups, strict=True):
        positions = [
            ranking.index(cell) if horizontal else cell["epochs"] + offset for cell in members
        ]
        style = style_of(members[0], cells) | {"label": "" if horizontal else name}
        figures.error_bars(ax, positions, *means(members, figure), horizontal, **style)
        for position, cell in zip(positions, members, strict=True):
            seeds = [row[figure] for row in rows if identity(cell).items() <= row.items()]
            dots = ([position] * len(seeds), seeds)
            ax.plot(*dots[::flip], ".", ms=3, alpha=0.5, color=style["color"])
    for entry in (entry for entry in entries if entry.model in models()):
        if horizontal:
            marked = [[i] for i, cell in enumerate(ranking) if comparable(cell, [entry])]
        else:
            marked = [[entry.epochs] if entry.epochs else [epochs[0], epochs[-1]]]
        for positions in marked:
            marks = (positions, [entry.accuracy] * len(positions))
            figures.reported(ax, *marks[::flip], entry.model, look(entry.model)["color"])
    text = f"{NAMES[figure]} (%), mean and 95 % interval"
    figures.percent_axis(ax.xaxis if horizontal else ax.yaxis)
    if horizontal:
        ax.set_yticks(range(len(ranking)), [label(cell) for cell in ranking])
        ax.set(xlabel=text, ylim=(len(ranking) - 0.5, -0.5))
    else:
        ax.set(xlabel="epochs", ylabel=text)
        ax.set_xticks(sorted({*epochs, *(entry.epochs for entry in entries if entry.epochs)}))


def cost(cells: Sequence[Cell], several: bool) -> Figure:
    """Draw mean accuracy against median training time; label the number of epochs if it varies."""
    figure = figure_of(cells)
    lines = {}
    for name, members in by(label, sorted(cells, key=lambda cell: cell["epochs"])):
        seconds = [cell["train_seconds_median"] for cell in members]
        lines[name] = (seconds, *means(members, figure), style_of(members[0], cells))
    image = figures.cost(lines, f"mean {NAMES[figure]}")
    for cell in cells if several else ():
        point = (cell["train_seconds_median"], cell[f"{figure}_mean"])
        image.axes[0].annotate(
            str(cell["epochs"]), point, (5, -11), textcoords="offset points", fontsize=8
        )
    return image


def means(cells: Sequence[Cell], figure: str) -> tuple[list[float], list[figures.Interval]]:
    """Return the means of cells and their intervals."""
    values, intervals = ([cell[f"{figure}_{p}"] for cell in cells] for p in ("mean", "interval"))
    return values, intervals


@functools.cache
def models() -> tuple[str, ...]:
    """Return the models in the order of `params.yaml`, which sets their colours."""
    return tuple(load_params().models)


def look(model: str) -> dict[str, str]:
    """Return a model's colour and marker, the same as in the report."""
    return figures.look(model, models())


def style_of(cell: Cell, cells: Sequence[Cell]) -> dict[str, Any]:
    """Return how to draw a cell: colour and marker by model, line and filling by variant."""
    variants = list(dict.fromkeys(other.get("variant") for other in cells))
    i = variants.index(cell.get("variant")) % len(LINES)
    return look(cell["model"]) | {"ls": LINES[i], "fillstyle": FILLS[i]}
