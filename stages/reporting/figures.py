"""Drawings that the report, the study page and the review share, and how they are saved.

A model has the same colour and marker everywhere. The colours are those of Okabe and Ito (2008),
which people with any common form of colour blindness can tell apart. In the pages' SVGs, text and
axes take the page's text colour, so that they fit light and dark mode and print.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from stages.common.params import ENSEMBLE

COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
MARKERS = "os^Dvp"
NEUTRAL = "#808080"  # of the ensemble; visible on white and on black
INK = "#010203"  # replaced by the page's text colour in an SVG
DPI = 110
SMALL_DPI = 80  # of the study's figure, which git keeps
LEGEND_ROW = 0.22  # inches
MARKED = 15  # markers per curve, about
REPORTED = "reported: "  # prefix of labels, which come last in a legend
NO_DATE = dict.fromkeys(("Date", "Creator", "Format", "Type"))
STYLE = {
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: any script, searchable, sharp in print
    "svg.hashsalt": "report",  # equal figures give equal bytes
    "text.parse_math": False,  # a class may be called "$5"
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": NEUTRAL,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}

Style = Mapping[str, Any]  # keyword arguments of `Axes.plot`, for example from `look`
Curve = tuple[Sequence[float], Sequence[float], Style]  # x, y, style
Interval = Sequence[float] | None  # low and high
Points = tuple[Sequence[float], Sequence[float], Sequence[Interval], Style]  # x, y, intervals


# --- shared parts -------------------------------------------------------------------------


def styled() -> Any:
    """Return the context in which figures are made and saved."""
    return mpl.rc_context(STYLE)


def look(name: str, models: Sequence[str]) -> dict[str, str]:
    """Return colour and marker of a model. They follow from its position among the models."""
    if name == ENSEMBLE:
        return {"color": NEUTRAL, "marker": "X"}
    i = [model for model in models if model != ENSEMBLE].index(name)
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def curves(panels: Mapping[str, Mapping[str, Curve]], columns: int) -> Figure:
    """Draw curves against the epoch in a grid of panels, by title and label, with one legend.

    A title that contains "loss" gets a logarithmic axis. One that contains "%" shows fractions as
    percent. The panels of a row share their y axis.
    """
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.6 * rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey="row", squeeze=False)
    for ax, (title, lines) in zip(grid.flat, panels.items(), strict=True):
        for label, (x, y, style) in lines.items():
            ax.plot(x, y, label=label, markevery=max(1, len(x) // MARKED), ms=4, **style)
        ax.set_title(title, fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if "loss" in title:
            _log_scale(ax)
        elif "%" in title:
            percent_axis(ax.yaxis)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    legend(figure)
    return figure


def _log_scale(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter("{x:.2g}")  # the default writes powers of ten as math, which STYLE turns off
    ax.tick_params(which="minor", labelsize=7)


def percent_axis(axis: Axis) -> None:
    """Show fractions as percent. The axis label should then say "(%)"."""
    axis.set_major_formatter(lambda fraction, _: f"{100 * fraction:.6g}")


def error_bars(
    ax: Axes, x: Sequence[float], y: Sequence[float], intervals: Sequence[Interval],
    horizontal: bool = False, **style: Any,
) -> None:  # fmt: skip
    """Draw points (x, y) with the interval of each y, or without where it is None.

    With `horizontal`, x and y change places.
    """
    ends = [interval or (value, value) for value, interval in zip(y, intervals, strict=True)]
    lengths = [abs(np.subtract(y, [end[side] for end in ends])) for side in (0, 1)]
    points, bars = ((y, x), {"xerr": lengths}) if horizontal else ((x, y), {"yerr": lengths})
    ax.errorbar(*points, **bars, capsize=3, **{"ms": 5} | style)


def reported(ax: Axes, x: Sequence[float], y: Sequence[float], model: str, colour: str) -> None:
    """Mark a reported figure of a model with hollow diamonds."""
    line = ":" if len(x) > 1 else ""
    ax.plot(x, y, marker="D", ms=7, mfc="none", ls=line, color=colour, label=REPORTED + model)


def cost(lines: Mapping[str, Points], accuracy: str) -> Figure:
    """Draw accuracies with their intervals against the training time in seconds, by label.

    `accuracy` says which accuracy this is.
    """
    figure = Figure(figsize=(7, 4.4))
    ax = figure.subplots()
    for label, (x, y, intervals, style) in lines.items():
        error_bars(ax, x, y, intervals, label=label, **style)
    ax.set_xlim(0, 1.05 * max(max(x) for x, *_ in lines.values()))
    percent_axis(ax.yaxis)
    ax.set(xlabel="training time (s)", ylabel=f"{accuracy} (%), 95 % interval")
    legend(figure)
    return figure


def legend(figure: Figure) -> None:
    """Draw one legend above all panels, in as few rows as the labels' lengths allow.

    Equal labels appear once. A figure without labels gets no legend.
    """
    entries = {
        text: handle
        for ax in figure.axes
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if not entries:
        return
    labels = sorted(entries, key=lambda text: text.startswith(REPORTED))
    room = 11 * figure.get_figwidth()  # characters; a marker takes about seven
    for columns in range(len(labels), 0, -1):
        rows = -(-len(labels) // columns)  # matplotlib fills column by column
        parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if sum(max(map(len, part)) + 7 for part in parts) < room:
            break
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
    handles = [entries[label] for label in labels]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(parts))


# --- the report's figures -----------------------------------------------------------------


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Draw accuracy and loss per epoch, training and validation, with all models in each panel."""
    panels = {
        "accuracy": "training accuracy (%)",
        "val_accuracy": "validation accuracy (%)",
        "loss": "training loss (nats)",
        "val_loss": "validation loss (nats)",
    }
    drawn = {
        title: {
            name: (
                [int(row["epoch"]) for row in history],
                [float(row[column]) for row in history],
                look(name, [*histories]),
            )
            for name, history in histories.items()
        }
        for column, title in panels.items()
    }
    return curves(drawn, columns=2)


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the number of images per true class (row) and predicted class (column).

    The colour is the share of the true class. Cells without images are blank.
    """
    n = len(class_names)
    side = min(10.0, 2.4 + 0.38 * n)
    figure = Figure(figsize=(side, side * 0.92))
    ax = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root keeps single errors visible next to thousands of correct images.
    ax.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(matrix):
        dark = shares[row, column] > 0.3
        ax.text(
            column, row, matrix[row, column], ha="center", va="center",
            fontsize=9 if n <= 12 else 6, color="white" if dark else "black",
        )  # fmt: skip
    ax.set_xticks(
        range(n), _short(class_names), rotation=90 if max(map(len, class_names)) > 2 else 0
    )
    ax.set_yticks(range(n), _short(class_names))
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(visible=False)
    return figure


def _short(names: Sequence[str], longest: int = 18) -> list[str]:
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]


def per_class(recalls: Mapping[str, Sequence[float]], class_names: Sequence[str]) -> Figure:
    """Draw the accuracy within each class (recall), with one marker per model."""
    figure = Figure(figsize=(6.4, 1.4 + 0.32 * len(class_names)))
    ax = figure.subplots()
    positions = np.arange(len(class_names))
    offsets = np.linspace(-0.25, 0.25, len(recalls)) if len(recalls) > 1 else [0.0]
    for offset, (name, values) in zip(offsets, recalls.items(), strict=True):
        ax.plot(values, positions + offset, ls="", ms=5, label=name, **look(name, [*recalls]))
    ax.set_yticks(positions, _short(class_names))
    ax.set_ylim(len(class_names) - 0.5, -0.5)
    percent_axis(ax.xaxis)
    ax.set_xlabel("accuracy per class (%)")
    legend(figure)
    return figure


def reliability(bins: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Draw accuracy against confidence. A calibrated model lies on the dotted diagonal."""
    figure = Figure(figsize=(5.6, 4.8))
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, ls=":", lw=1)
    for name, rows in bins.items():
        confidence = [float(row["confidence"]) for row in rows]
        accuracy = [float(row["accuracy"]) for row in rows]
        ax.plot(confidence, accuracy, ms=5, label=name, **look(name, [*bins]))
    for axis in (ax.xaxis, ax.yaxis):
        percent_axis(axis)
    ax.set(xlabel="mean confidence (%)", ylabel="accuracy (%)", xlim=(0, 1.02), ylim=(0, 1.02))
    legend(figure)
    return figure


# --- saving -------------------------------------------------------------------------------


def as_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as PNG on white. Equal figures give equal bytes."""
    return _save(figure, "png", dpi=dpi, metadata={"Software": None}, facecolor="white")


def as_svg_file(figure: Figure) -> bytes:
    """Return a figure as an SVG file on white. Equal figures give equal bytes."""
    return _save(figure, "svg", metadata=NO_DATE, facecolor="white")


def as_svg(figure: Figure, title: str) -> str:
    """Return a figure as an `svg` element in the page's text colour; `title` is its alt text."""
    text = _save(figure, "svg", metadata=NO_DATE, transparent=True).decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    start, rest = text.split(">", 1)
    view_box = re.search(r'viewBox="([^"]+)"', start).group(1)
    width = float(view_box.split()[2])
    prefix = re.sub(r"\W", "", title.split(":")[0])  # makes ids unique within the page
    rest = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", rest)
    rest = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}-', rest)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{html.escape(title)}" viewBox="{view_box}" '
        f'style="max-width:{width * 4 / 3:.0f}px">{rest}'
    )


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # matplotlib's own font lacks scripts that a browser has
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support")
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
