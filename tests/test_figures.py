"""The drawing functions that report, study page and review share."""

from __future__ import annotations

import re

import pytest
from matplotlib.figure import Figure

from stages.reporting import figures
from stages.reporting.figures import as_png, as_svg, as_svg_file, cost, curves, look

MODELS = ("cnn", "lstm")
LINE = ([1, 2, 3], [0.5, 0.25, 0.125], look("cnn", MODELS))
OTHER = ([1, 2], [0.9, 0.1], look("lstm", MODELS))


@pytest.fixture(autouse=True)
def _style():
    with figures.styled():
        yield


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_curves_are_drawn_in_their_panels_with_one_legend():
    figure = curves({"a (%)": {"cnn": LINE, "lstm": OTHER}, "loss": {"cnn": LINE}}, columns=1)
    upper, lower = figure.axes
    assert [list(line.get_ydata()) for line in upper.lines] == [LINE[1], OTHER[1]]
    assert (upper.get_title(), lower.get_title()) == ("a (%)", "loss")
    assert (upper.get_yscale(), lower.get_yscale()) == ("linear", "log")
    assert upper.yaxis.get_major_formatter()(0.995) == "99.5"
    assert texts(figure) == ["cnn", "lstm"]


def test_a_model_looks_the_same_with_and_without_the_ensemble():
    assert look("lstm", ("cnn", "lstm", "ensemble")) == look("lstm", MODELS)
    assert look("lstm", MODELS) != look("cnn", MODELS) != look("ensemble", MODELS)


def test_error_bars_end_at_the_interval():
    figure = cost({"cnn": ([10, 20], [0.9, 0.95], [(0.8, 0.92), None], {})}, "test accuracy")
    (ax,) = figure.axes
    (bars,) = (bars for container in ax.containers for bars in container.lines[2])
    ends = [sorted(y for _, y in segment) for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.8, 0.92]), pytest.approx([0.95, 0.95])]


def test_reported_figures_come_last_in_the_legend_and_once():
    figure = Figure()
    ax = figure.subplots()
    for epochs in (8, 30):
        figures.reported(ax, [epochs], [0.9], "cnn", "red")
    figures.error_bars(ax, [8], [0.8], [None], label="cnn")
    figures.legend(figure)
    assert texts(figure) == ["cnn", "reported: cnn"]


def test_equal_figures_give_equal_files():
    for save in (as_png, as_svg_file, lambda figure: as_svg(figure, "Title: text")):
        assert save(curves({"loss": {"cnn": LINE}}, 1)) == save(curves({"loss": {"cnn": LINE}}, 1))


def test_the_ids_of_two_figures_in_a_page_differ():
    made = [as_svg(curves({"loss": {"cnn": LINE}}, 1), f"{name}: <curve>") for name in "AB"]
    first, second = (set(re.findall(r'\bid="([^"]+)"', text)) for text in made)
    assert first
    assert not first & second
    for text, ids in zip(made, (first, second), strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= ids
        assert "&lt;curve&gt;" in text
