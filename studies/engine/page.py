"""The page of a study: its cells as figures and tables, published figures beside them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from stages.common.params import load_params
from stages.evaluation import SIGNIFICANT
from stages.reporting import figures
from stages.reporting.sentences import p_text
from stages.reporting.targets import Published
from stages.reporting.templating import render
from studies.engine.grid import Study
from studies.engine.summary import KEYS, beside, of_dataset, settings_of

TEMPLATE = Path(__file__).parent / "templates/study.html.jinja"
LINES = ("-", "--", ":", "-.")  # of the variants, in their order; their marks are filled so:
FILLS = ("full", "left", "bottom", "none")


def page(
    name: str, study: Study, cells: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return the page as HTML; `cells` and `rows` are those of `studies.engine.summary`."""
    figure = figure_of(study)
    known = {dataset: of_dataset(study, cells, dataset) for dataset in datasets(cells)}
    return render(
        TEMPLATE,
        {
            "name": name,
            "study": study,
            "figure": figure,
            "part": "test" if study.evaluate == "test" else "validation",
            "verdict": verdicts(cells),
            "groups": [
                {
                    "dataset": dataset,
                    "cells": [dict(cell) | {"label": label(cell)} for cell in cells
                              if cell["dataset"] == dataset],
                    "published": entries,
                    "figures": draw(
                        [cell for cell in cells if cell["dataset"] == dataset],
                        [row for row in rows if row["dataset"] == dataset],
                        entries, figure, f"{dataset}_"),
                }
                for dataset, entries in known.items()
            ],
            "beside": lambda cell: beside(cell, known[cell["dataset"]]),
            "rows": rows,
            "machines": sorted({machine for cell in cells for machine in cell["machines"]}),
            "trials": sum(cell["n"] for cell in cells),
            "colours": {model: look(model)["color"] for model in models()},
        },
    )  # fmt: skip


def overview(
    study: Study, cells: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> bytes:
    """Return the accuracies of all data sets as one PNG, a panel each, for a README.

    Equal results give equal bytes; `cells` and `rows` are those of `page`.
    """
    names = datasets(cells)
    with figures.styled():
        size = (max(8, 5.2 * len(names)), 4.4)
        image, axes = figures.plt.subplots(1, len(names), figsize=size, squeeze=False)
        for ax, dataset in zip(axes[0], names, strict=True):
            members = [cell for cell in cells if cell["dataset"] == dataset]
            entries = of_dataset(study, cells, dataset)
            accuracies(ax, members, rows, entries, figure_of(study))
            ax.set_title(dataset)
        legend(image, axes[0])
        content = figures.as_png(image, figures.SMALL_DPI)
        figures.plt.close(image)
    return content


def figure_of(study: Study) -> str:
    """Return which figure of its trials a study compares."""
    return "accuracy" if study.evaluate == "test" else "val_accuracy"


def datasets(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["dataset"] for cell in cells))


def label(cell: Mapping[str, Any]) -> str:
    """Return what names a cell's curve: the model, and what else was varied."""
    others = [
        str(value) if key == "variant" else f"{key} {value}"
        for key, value in settings_of(cell).items()
    ]
    return ", ".join([cell["model"], *others])


# --- words --------------------------------------------------------------------------------


def verdicts(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a study says, in sentences.

    For each data set which cell is best at each number of epochs; then for each of its models
    (and variants) at which number of epochs it is best.
    """
    figure = "accuracy" if "accuracy_mean" in cells[0] else "val_accuracy"
    sentences = []
    for dataset in datasets(cells):
        members = [cell for cell in cells if cell["dataset"] == dataset]
        for epochs, row in by(lambda cell: cell["epochs"], members):
            best = max(row, key=lambda cell: cell[f"{figure}_mean"])
            sentences.append(
                f"{dataset}, {epochs} epochs: {label(best)} has the highest mean accuracy, "
                f"{against(best, row, figure, label)}"
            )
        for name, line in by(label, members):
            if len(line) > 1:
                best = max(line, key=lambda cell: cell[f"{figure}_mean"])
                sentences.append(
                    f"{dataset}, {name}: most accurate after {best['epochs']} epochs, "
                    f"{against(best, line, figure, lambda cell: str(cell['epochs']))}"
                )
    return sentences


def by(
    key: Callable[[Mapping[str, Any]], Any], cells: Sequence[Mapping[str, Any]]
) -> list[tuple[Any, list[Mapping[str, Any]]]]:
    """Return the cells in groups that agree in `key`, in the order in which these come first."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.items())


def against(
    best: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]],
    figure: str,
    name: Callable[[Mapping[str, Any]], str],
) -> str:
    """Return the best cell's mean, and of which others it is more than luck in the seeds.

    Each with the difference in points, its 95 % interval, and the corrected p.
    """
    told: dict[bool, list[str]] = {True: [], False: []}
    for other in others:
        found = compared(best, other)
        if found:
            difference, interval, p = found
            reach = f", {100 * interval[0]:.2f} to {100 * interval[1]:.2f}" if interval else ""
            points = f"{100 * difference:+.2f}{reach}, {p_text(p)}"
            told[p < SIGNIFICANT].append(f"{name(other)} ({points})")
    parts = [
        f"{100 * best[f'{figure}_mean']:.2f} %"
        + (f" ± {100 * best[f'{figure}_std']:.2f}" if best["n"] > 1 else "")
        + f" (n = {best['n']})"
    ]
    if told[True]:
        parts.append(f"more than luck in the seeds against {', '.join(told[True])}")
    if told[False]:
        parts.append(f"not distinguishable from {', '.join(told[False])}")
    return "; ".join(parts) + "."


def compared(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[float, list[float] | None, float] | None:
    """Return one cell's paired difference from another, its interval, and the corrected p.

    None where the two were not compared.
    """
    for a, b, sign in ((one, other, 1), (other, one, -1)):
        for entry in a["against"]:
            if place(a) | {entry["key"]: entry["value"]} == place(b):
                interval = entry["interval"] and sorted(sign * end for end in entry["interval"])
                return sign * entry["difference"], interval, entry["p_holm"]
    return None


def place(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in KEYS} | settings_of(cell)


# --- figures ------------------------------------------------------------------------------


def draw(
    cells: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    entries: Sequence[Published],
    figure: str,
    prefix: str,
) -> dict[str, Markup]:
    """Return the figures of one data set as SVG."""
    high = 5 if numbers_of_epochs(cells) > 1 else 1.6 + 0.36 * len(cells)
    with figures.styled():
        image, ax = figures.plt.subplots(figsize=(8, high))
        accuracies(ax, cells, rows, entries, figure)
        legend(image, [ax])
        made = {"accuracy": image, "cost": against_time(cells, figure)}
        titles = {
            "accuracy": f"{prefix}accuracy: mean accuracy and 95 % interval over seeds",
            "cost": f"{prefix}cost: mean accuracy against seconds of training",
        }
        drawn = {}
        for key, image in made.items():
            drawn[key] = Markup(figures.as_svg(image, titles[key]))  # noqa: S704  escaped in as_svg
            figures.plt.close(image)
    return drawn


def numbers_of_epochs(cells: Sequence[Mapping[str, Any]]) -> int:
    return len({cell["epochs"] for cell in cells})


def accuracies(ax: Any, cells: Sequence[Mapping[str, Any]], *others: Any) -> None:
    """Draw the accuracies of one data set, against the epochs where there are several."""
    (against_epochs if numbers_of_epochs(cells) > 1 else ranked)(ax, cells, *others)


def against_epochs(
    ax: Any,
    cells: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    entries: Sequence[Published],
    figure: str,
) -> None:
    """Mean and 95 % interval against the epochs, a line a model and variant; a dot a seed."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        lines.setdefault(label(cell), []).append(cell)
    width = 0.12 * max(1, min(np.diff(sorted({cell["epochs"] for cell in cells}))))
    offsets = np.linspace(-width, width, len(lines)) if len(lines) > 1 else [0.0]
    for offset, (name, members) in zip(offsets, lines.items(), strict=True):
        members = sorted(members, key=lambda cell: cell["epochs"])  # noqa: PLW2901
        x = [cell["epochs"] + offset for cell in members]
        y = [cell[f"{figure}_mean"] for cell in members]
        style = style_of(members[0], cells)
        ax.errorbar(x, y, reach(members, figure), capsize=3, ms=5, label=name, **style)
        for place_x, cell in zip(x, members, strict=True):
            seeds = seeds_of(cell, rows, figure)
            ax.plot([place_x] * len(seeds), seeds, ".", ms=3, alpha=0.5, color=style["color"])
    epochs = [cell["epochs"] for cell in cells]
    for entry in entries:
        mark(ax, entry, [entry.epochs] if entry.epochs else [min(epochs), max(epochs)], "y")
    ax.set(xlabel="epochs", ylabel=f"{named(figure)}, mean and 95 % interval")
    ax.set_xticks(sorted({*epochs, *(entry.epochs for entry in entries if entry.epochs)}))


def ranked(
    ax: Any,
    cells: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    entries: Sequence[Published],
    figure: str,
) -> None:
    """One number of epochs: a line a cell, best first, with its interval and a dot a seed."""
    order = sorted(cells, key=lambda cell: -cell[f"{figure}_mean"])
    for y, cell in enumerate(order):
        style = style_of(cell, cells)
        error = reach([cell], figure)
        ax.errorbar([cell[f"{figure}_mean"]], [y], xerr=error, capsize=3, ms=6, **style)
        seeds = seeds_of(cell, rows, figure)
        ax.plot(seeds, [y] * len(seeds), ".", ms=3, alpha=0.6, color=style["color"])
        for entry in beside(cell, entries):
            mark(ax, entry, [y], "x")
    ax.set_yticks(range(len(order)), [label(cell) for cell in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel(f"{named(figure)}, mean and 95 % interval")


def against_time(cells: Sequence[Mapping[str, Any]], figure: str) -> Figure:
    """Mean accuracy against the median seconds of a training, a mark a cell."""
    image, ax = figures.plt.subplots(figsize=(8, 4.5))
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        lines.setdefault(label(cell), []).append(cell)
    several = numbers_of_epochs(cells) > 1
    for name, members in lines.items():
        members = sorted(members, key=lambda cell: cell["epochs"])  # noqa: PLW2901
        x = [cell["train_seconds_median"] for cell in members]
        y = [cell[f"{figure}_mean"] for cell in members]
        style = style_of(members[0], cells)
        ax.errorbar(x, y, reach(members, figure), capsize=3, ms=5, label=name, **style)
        for cell, at_x, at_y in zip(members, x, y, strict=True):
            if several:
                ax.annotate(str(cell["epochs"]), (at_x, at_y), (5, -11),
                            textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set_xlim(left=0)
    note = " (number: epochs)" if several else ""
    ax.set(xlabel=f"seconds of training, median{note}", ylabel=named(figure))
    legend(image, [ax])
    return image


def mark(ax: Any, entry: Published, where: Sequence[float], axis: str) -> None:
    """Draw a published figure, hollow, in its model's colour."""
    if entry.model not in models():
        return
    values = [entry.accuracy] * len(where)
    points = (where, values) if axis == "y" else (values, where)
    text = f"published: {entry.model}"
    known = ax.get_legend_handles_labels()[1]
    ax.plot(
        *points, marker="D", ms=7, mfc="none", ls=":" if len(where) > 1 else "",
        color=look(entry.model)["color"],
        label=None if text in known else text,
    )  # fmt: skip


def reach(cells: Sequence[Mapping[str, Any]], figure: str) -> list[list[float]]:
    """Return the lengths of the error bars below and above the means; 0 with one seed."""
    half = [
        (cell[f"{figure}_interval"][1] - cell[f"{figure}_mean"])
        if cell[f"{figure}_interval"]
        else 0.0
        for cell in cells
    ]
    return [half, half]


def seeds_of(
    cell: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], figure: str
) -> list[float]:
    wanted = place(cell)
    return [row[figure] for row in rows if {key: row.get(key) for key in wanted} == wanted]


@functools.cache
def models() -> tuple[str, ...]:
    """Return the models in the order of `params.yaml`, which sets their colours."""
    return tuple(load_params().models)


def look(model: str) -> dict[str, str]:
    """Return a model's colour and marker, the same as in the report."""
    return figures.look(model, models())


def variant(cell: Mapping[str, Any]) -> str:
    return cell.get("variant", "")


def style_of(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how a cell is drawn: its model's colour and mark, its variant's line and filling."""
    names = list(dict.fromkeys(variant(other) for other in cells))
    i = names.index(variant(cell)) % len(LINES)
    return look(cell["model"]) | {"ls": LINES[i], "fillstyle": FILLS[i]}


def named(figure: str) -> str:
    return "test accuracy" if figure == "accuracy" else "validation accuracy"


def legend(image: Figure, axes: Sequence[Any]) -> None:
    """One legend below the figure, in as many columns as fit; none where nothing has a name."""
    entries = {text: handle for ax in axes
               for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}  # fmt: skip
    if entries:
        wide = image.get_figwidth() * 11  # letters
        columns = max(1, min(len(entries), int(wide / (8 + max(map(len, entries))))))
        image.legend(entries.values(), entries, loc="outside lower center", ncols=columns,
                     fontsize=9)  # fmt: skip
