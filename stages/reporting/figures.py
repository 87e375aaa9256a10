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
from stages.reporting.sentences import points

COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#e69f00", "#56b4e9")
MARKERS = "os^Dvp"
NEUTRAL = "#808080"  # of the ensemble; visible on white and on black
INK = "#010203"  # replaced by the page's text colour in an SVG
DPI = 110
SMALL_DPI = 80  # of the study's figure, which git keeps
LEGEND_ROW = 0.22  # inches
FEW = 10  # images; the accuracy of fewer says little
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
    horizontal: bool = False, tips: Sequence[str] = (), **style: Any,
) -> None:  # fmt: skip
    """Draw points (x, y) with the interval of each y, or without where it is None.

    With `horizontal`, x and y change places. `tips` are shown on hover, one per point.
    """
    ends = [interval or (value, value) for value, interval in zip(y, intervals, strict=True)]
    lengths = [abs(np.subtract(y, [end[side] for end in ends])) for side in (0, 1)]
    places, bars = ((y, x), {"xerr": lengths}) if horizontal else ((x, y), {"yerr": lengths})
    drawn = ax.errorbar(*places, **bars, **{"ms": 5, "capsize": 3} | style)
    if tips:
        drawn[0].tips = tips


def reported(ax: Axes, x: Sequence[float], y: Sequence[float], model: str, colour: str) -> None:
    """Mark the accuracy that others reported for a model with hollow diamonds."""
    line = ":" if len(x) > 1 else ""
    ax.plot(x, y, marker="D", ms=7, mfc="none", ls=line, color=colour, label=REPORTED + model)


def cost(lines: Mapping[str, Points], accuracy: str) -> Figure:
    """Draw accuracies with their intervals against the training time in seconds, by label.

    `accuracy` says which accuracy this is.
    """
    figure = Figure(figsize=(7, 4.4))
    ax = figure.subplots()
    for label, (x, y, intervals, style) in lines.items():
        tips = [
            f"{label}: {_percent(value)}, {time:.1f} s" for time, value in zip(x, y, strict=True)
        ]
        error_bars(ax, x, y, intervals, label=label, tips=tips, **style)
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


def forest(
    rows: Sequence[Mapping[str, Any]],
    comparisons: Sequence[Mapping[str, Any]],
    targets: Mapping[str, float],
    reported_figures: Sequence[tuple[str, float, str]],
) -> Figure:
    """Draw each model's test accuracy, and below it the differences between models.

    Parameters
    ----------
    rows
        As returned by `table.collect`.
    comparisons
        As returned by `significance.compare_all`.
    targets
        Target accuracy by model, drawn as a tick.
    reported_figures
        Models, accuracies that others reported, and where; drawn as hollow diamonds.
    """
    names = [row["model"] for row in rows]
    heights = [len(names), max(1, len(comparisons))]
    figure = Figure(figsize=(7, 1.7 + 0.33 * sum(heights)))
    upper, lower = figure.subplots(2, height_ratios=heights)
    for place, row in enumerate(rows):
        ends = (row["test_low"], row["test_high"])
        text = f"{row['model']}: {_percent(row['test_accuracy'])} ({_percent(*ends)})"
        error_bars(upper, [place], [row["test_accuracy"]], [ends], horizontal=True, tips=[text],
                   **look(row["model"], names))  # fmt: skip
        if row["model"] in targets:
            label = "target for the mean over seeds"
            target = targets[row["model"]]
            (drawn,) = upper.plot(target, place, "|", ms=18, mew=2, color=INK, label=label)
            drawn.tips = [f"{row['model']}: target {_percent(target)}"]
    for model, accuracy, title in reported_figures:
        if model in names:
            place, colour = names.index(model), look(model, names)["color"]
            (drawn,) = upper.plot(accuracy, place, "D", ms=7, mfc="none", color=colour,
                                  label="reported")  # fmt: skip
            drawn.tips = [f"{title}: {_percent(accuracy)}"]
    upper.set_yticks(range(len(names)), names)
    upper.set(xlabel="test accuracy (%), 95 % interval", ylim=(len(names) - 0.5, -0.5))
    pairs = [f"{pair['a']} − {pair['b']}" for pair in comparisons]
    for place, pair in enumerate(comparisons):
        ends = " to ".join(map(points, pair["interval"]))
        text = f"{pairs[place]}: {points(pair['difference'])} points ({ends})"
        error_bars(lower, [place], [pair["difference"]], [pair["interval"]], horizontal=True,
                   tips=[text], color=NEUTRAL, marker="o")  # fmt: skip
    lower.axvline(0, color=INK, lw=1, ls=":")
    lower.set_yticks(range(len(pairs)), pairs)
    lower.set(xlabel="difference of test accuracy (points), 95 % interval",
              ylim=(heights[1] - 0.5, -0.5))  # fmt: skip
    for ax in (upper, lower):
        percent_axis(ax.xaxis)
        ax.grid(visible=False, axis="y")
    legend(figure)
    return figure


def _percent(*fractions: float) -> str:
    return " to ".join(f"{100 * fraction:.2f}" for fraction in fractions) + " %"


def learning_curves(
    histories: Mapping[str, Sequence[Mapping[str, str]]], least_error: float
) -> Figure:
    """Draw error rate and loss per epoch, on logarithmic axes, and ring the best epoch.

    Validation is solid, training dashed. Smaller error rates than `least_error`, such as 0, are
    drawn there.
    """
    figure = Figure(figsize=(12, 4.2))
    panels = figure.subplots(1, 2)
    for name, history in histories.items():
        epochs = [int(row["epoch"]) for row in history]
        style = look(name, [*histories])
        for ax, column in zip(panels, ("accuracy", "loss"), strict=True):
            for part, line in (("val_", "-"), ("", "--")):
                y = np.array([float(row[part + column]) for row in history])
                form = "{:.3g} nats"
                if column == "accuracy":
                    y, form = 1 - y, "{:.3g} % errors"
                tips = [form.format(100 * value if "%" in form else value) for value in y]
                y = np.maximum(y, least_error) if column == "accuracy" else y
                kind = {"label": name, "ms": 4} if part else {"lw": 1, "marker": ".", "ms": 3}
                (drawn,) = ax.plot(epochs, y, **style | {"ls": line} | kind)
                what = "validation" if part else "training"
                drawn.tips = [
                    f"{name}, {what}, epoch {epoch}: {tip}"
                    for epoch, tip in zip(epochs, tips, strict=True)
                ]
                if part:
                    best = int(y.argmin())
                    ax.plot(epochs[best], y[best], "o", ms=11, mfc="none", color=style["color"])
    for ax, label in zip(panels, ("error rate (%)", "loss (nats)"), strict=True):
        _log_scale(ax)
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for set_formatter in (panels[0].yaxis.set_major_formatter, panels[0].yaxis.set_minor_formatter):
        set_formatter(lambda fraction, _: f"{100 * fraction:.3g}")
    legend(figure)
    return figure


def _short(names: Sequence[str], longest: int = 18) -> list[str]:
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]


def per_class(ranking: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each model's accuracy within each class (recall), with its 95 % interval.

    `ranking` is as returned by `page.class_ranking`.
    """
    models = [*ranking[0]["recall"]]
    offsets = np.linspace(-0.3, 0.3, len(models)) if len(models) > 1 else [0.0]
    figure = Figure(figsize=(6.4, 1.4 + (0.16 + 0.06 * len(models)) * len(ranking)))
    ax = figure.subplots()
    for offset, name in zip(offsets, models, strict=True):
        found = [row["recall"][name] for row in ranking]
        tips = [
            f"{name}, {row['name']}: {_percent(value)} ({_percent(low, high)})"
            for row, (value, low, high) in zip(ranking, found, strict=True)
        ]
        values, ends = [value for value, *_ in found], [interval for _, *interval in found]
        error_bars(ax, np.arange(len(ranking)) + offset, values, ends, horizontal=True, tips=tips,
                   capsize=0, elinewidth=0.8, ls="", label=name, **look(name, models))  # fmt: skip
    ax.set_yticks(range(len(ranking)), _short([row["name"] for row in ranking]))
    ax.set_ylim(len(ranking) - 0.5, -0.5)
    percent_axis(ax.xaxis)
    ax.set_xlabel("accuracy per class (%), 95 % interval")
    legend(figure)
    return figure


def reliability(bins: Mapping[str, Sequence[Mapping[str, str]]]) -> Figure:
    """Draw accuracy against confidence; the area of a point grows with its number of images.

    A calibrated model lies on the dotted diagonal. Points of fewer than `FEW` images are hollow.
    """
    figure = Figure(figsize=(5.6, 4.8))
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=NEUTRAL, ls=":", lw=1)
    for name, rows in bins.items():
        style = look(name, [*bins])
        ax.plot([], [], ls="", label=name, **style)
        for row in rows:
            images, place = int(row["images"]), (float(row["confidence"]), float(row["accuracy"]))
            fill = {"mfc": "none"} if images < FEW else {"alpha": 0.7}
            (drawn,) = ax.plot(*place, ms=3 + 2.5 * np.log10(images), **style, **fill)
            drawn.tips = [f"{name}: {images:,} images, accuracy {_percent(place[1])}, "
                          f"confidence {_percent(place[0])}"]  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        percent_axis(axis)
    ax.set(xlabel="mean confidence (%)", ylabel="accuracy (%)", xlim=(0, 1.03), ylim=(-0.02, 1.03))
    legend(figure)
    return figure


def coverage(curves_of: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw accuracy against coverage: the share of images kept, the most confident first."""
    figure = Figure(figsize=(5.6, 4.2))
    ax = figure.subplots()
    for name, (shares, accuracies) in curves_of.items():
        style = look(name, [*curves_of])
        (drawn,) = ax.plot(shares, accuracies, ms=4, label=name, **style)
        drawn.tips = [
            f"{name}: {_percent(accuracy)} accuracy on {_percent(share)} of the images"
            for share, accuracy in zip(shares, accuracies, strict=True)
        ]
    for axis in (ax.xaxis, ax.yaxis):
        percent_axis(axis)
    ax.set(xlabel="images answered (%)", ylabel="accuracy of the answers (%)")
    legend(figure)
    return figure


def robustness(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Draw accuracy against strength: one panel per corruption, one line per model."""
    kinds = list(dict.fromkeys(row["corruption"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    lines = -(-len(kinds) // 4)
    figure = Figure(figsize=(13, 2.4 * lines + 0.4))
    grid = figure.subplots(lines, min(4, len(kinds)), sharex=True, sharey=True, squeeze=False)
    for ax in grid.flat[len(kinds) :]:
        ax.remove()
    for ax, kind in zip(grid.flat, kinds, strict=False):
        for name in names:
            own = [row for row in rows if (row["model"], row["corruption"]) == (name, kind)]
            x = [int(row["strength"]) for row in own]
            y = [float(row["accuracy"]) for row in own]
            (drawn,) = ax.plot(x, y, ms=4, label=name, **look(name, names))
            drawn.tips = [
                f"{name}, {kind} {strength}: {_percent(value)}"
                for strength, value in zip(x, y, strict=True)
            ]
        ax.set_title(kind, fontsize=10)
        ax.set_xticks(range(6))
    percent_axis(grid[0, 0].yaxis)
    figure.supxlabel("strength (0: the images as they are)", fontsize=10)
    figure.supylabel("accuracy (%)", fontsize=10)
    legend(figure)
    return figure


# --- saving -------------------------------------------------------------------------------


def as_png(figure: Figure, dpi: int = DPI, title: str = "") -> bytes:
    """Return a figure as PNG on white, with a title above it. Equal figures give equal bytes."""
    if title:  # a legend is above the panels, where a title of the figure would cover it
        (figure.legends[0].set_title if figure.legends else figure.suptitle)(title)
    return _save(figure, "png", dpi=dpi, metadata={"Software": None}, facecolor="white")


def as_svg_file(figure: Figure) -> bytes:
    """Return a figure as an SVG file on white. Equal figures give equal bytes."""
    return _save(figure, "svg", metadata=NO_DATE, facecolor="white")


def as_svg(figure: Figure, title: str) -> str:
    """Return a figure as an `svg` element in the page's text colour; `title` is its alt text.

    A line with an attribute `tips` shows them on hover over its points. The CSS variable
    `--natural` is the figure's own width in pixels, `--least` the width below which the text is too
    small to read.
    """
    marked = figure.findobj(lambda artist: hasattr(artist, "tips"))
    for i, artist in enumerate(marked):
        artist.set_gid(f"tips{i}-")
    text = _save(figure, "svg", metadata=NO_DATE, transparent=True).decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for i, artist in enumerate(marked):
        before, after = text.split(f'id="tips{i}-"', 1)
        tips = iter(artist.tips)
        after = re.sub(
            r"<use ([^>]*)/>",
            lambda use: f"<use {use[1]}><title>{html.escape(next(tips))}</title></use>",  # noqa: B023
            after,
            count=len(artist.tips),
        )
        text = before + after
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
        f'style="--natural:{width * 4 / 3:.0f}px;--least:{width * 0.8:.0f}px">{rest}'
    )


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # matplotlib's own font lacks scripts that a browser has
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support")
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
