"""The report's figures, drawn once and saved as SVG (for the page) and PNG (for others).

A model has one colour, marker and dash everywhere; the colours are those of Okabe and Ito (2008),
which people with any common colour blindness can tell apart. In the page's SVGs, text and axes
take the page's text colour, so that light, dark and print each fit.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from stages.common.params import ENSEMBLE

COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
MARKERS = "os^Dvp"
NEUTRAL = "#808080"  # of the ensemble; seen on white and on black
INK = "#010203"  # stands for the page's text colour in an SVG
DPI = 110
LEGEND_ROW = 0.22  # inches
SMALL_DPI = 80  # of the two figures that git keeps
STYLE = {
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: any script, searchable, sharp in print
    "svg.hashsalt": "report",  # equal figures, equal bytes
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


def look(name: str, models: Sequence[str]) -> dict[str, str]:
    """Return colour and marker of a model: by its place among the models, so always the same."""
    if name == ENSEMBLE:
        return {"color": NEUTRAL, "marker": "X"}
    place = [model for model in models if model != ENSEMBLE].index(name)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Accuracy and loss against the epoch, training and validation, all models in each."""
    figure, axes = plt.subplots(2, 2, figsize=(6.6, 5.2), sharex=True, sharey="row")
    panels = {
        "accuracy": "training accuracy",
        "val_accuracy": "validation accuracy",
        "loss": "training loss (nats)",
        "val_loss": "validation loss (nats)",
    }
    for ax, (column, title) in zip(axes.flat, panels.items(), strict=True):
        for name, history in histories.items():
            epochs = [int(row["epoch"]) for row in history]
            values = [float(row[column]) for row in history]
            every = max(1, len(epochs) // 15)
            ax.plot(epochs, values, label=name, markevery=every, ms=4, **look(name, [*histories]))
        ax.set_title(title, fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for ax in axes[1]:
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        for axis in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            axis("{x:.2g}")  # the default would be mathematics, which is switched off
        ax.tick_params(which="minor", labelsize=7)
        ax.set_xlabel("epoch")
    _legend(figure, axes[0, 0])
    return figure


def _legend(figure: Figure, ax: plt.Axes) -> None:
    """One legend above all panels, in as few rows as the names' lengths allow."""
    handles, labels = ax.get_legend_handles_labels()
    room = 11 * figure.get_figwidth()  # characters, of which a marker takes about seven
    for columns in range(len(labels), 0, -1):
        rows = -(-len(labels) // columns)  # matplotlib fills column by column
        parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if sum(max(map(len, part)) + 7 for part in parts) < room:
            break
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows - 1))
    figure.legend(handles, labels, loc="outside upper center", ncols=len(parts))


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts on the share of each actual class's images; empty cells are left blank."""
    n = len(class_names)
    side = min(10.0, 2.4 + 0.38 * n)
    figure, ax = plt.subplots(figsize=(side, side * 0.92))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root lets single mistakes be seen beside thousands of right answers.
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
    ax.set(xlabel="predicted", ylabel="actual")
    ax.grid(visible=False)
    return figure


def _short(names: Sequence[str], longest: int = 18) -> list[str]:
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]


def per_class(recalls: Mapping[str, Sequence[float]], class_names: Sequence[str]) -> Figure:
    """Each class's accuracy (recall), a mark a model."""
    figure, ax = plt.subplots(figsize=(6.4, 1.4 + 0.32 * len(class_names)))
    places = np.arange(len(class_names))
    offsets = np.linspace(-0.25, 0.25, len(recalls)) if len(recalls) > 1 else [0.0]
    for offset, (name, values) in zip(offsets, recalls.items(), strict=True):
        ax.plot(values, places + offset, ls="", ms=5, label=name, **look(name, [*recalls]))
    ax.set_yticks(places, _short(class_names))
    ax.set_ylim(len(class_names) - 0.5, -0.5)
    ax.set_xlabel("accuracy within the class")
    _legend(figure, ax)
    return figure


def reliability(bins: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Accuracy against confidence; on the diagonal, confidence means what it says."""
    figure, ax = plt.subplots(figsize=(5.6, 4.8))
    ax.plot([0, 1], [0, 1], color=NEUTRAL, ls=":", lw=1)
    for name, rows in bins.items():
        confidence = [float(row["confidence"]) for row in rows]
        accuracy = [float(row["accuracy"]) for row in rows]
        ax.plot(confidence, accuracy, ms=5, label=name, **look(name, [*bins]))
    ax.set(xlabel="mean confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    _legend(figure, ax)
    return figure


def cost(rows: Sequence[Mapping], intervals: Mapping[str, Sequence[float]]) -> Figure:
    """Test accuracy with its interval against the seconds of training."""
    figure, ax = plt.subplots(figsize=(6.2, 4.2))
    names = [row["model"] for row in rows]
    for row in rows:
        low, high = intervals[row["model"]]
        accuracy = row["test_accuracy"]
        ax.errorbar(
            row["train_seconds"], accuracy, [[accuracy - low], [high - accuracy]],
            ls="", ms=7, capsize=3, label=row["model"], **look(row["model"], names),
        )  # fmt: skip
    ax.set_xlim(left=0)
    ax.set(xlabel="seconds of training", ylabel="test accuracy, 95 % interval")
    _legend(figure, ax)
    return figure


# --- saving -------------------------------------------------------------------------------


def styled():
    """Return the context in which figures are made and saved."""
    return mpl.rc_context(STYLE)


def as_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as PNG, on white; equal figures give equal bytes."""
    return _save(figure, "png", dpi=dpi, metadata={"Software": None}, facecolor="white")


def as_svg(figure: Figure, title: str) -> str:
    """Return a figure as an `svg` element in the page's text colour; `title` is its alt text."""
    text = _save(
        figure, "svg", transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    ).decode()  # fmt: skip
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    start, rest = text.split(">", 1)
    view_box = re.search(r'viewBox="([^"]+)"', start).group(1)
    width = float(view_box.split()[2])
    prefix = re.sub(r"\W", "", title.split(":")[0])  # ids are unique within a page
    rest = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', rest)
    rest = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", rest)
    rest = re.sub(r'xlink:href="#', f'xlink:href="#{prefix}-', rest)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-label="{html.escape(title)}" viewBox="{view_box}" '
        f'style="max-width:{width * 4 / 3:.0f}px">{rest}'
    )


def _save(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # matplotlib's own font lacks scripts that a browser has
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support")
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
