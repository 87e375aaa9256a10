"""The drawing functions that report, study page and review share."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from stages.reporting import figures
from stages.reporting.figures import as_png, cost, curves

LINE = ([1, 2, 3], [0.5, 0.25, 0.125], {})
OTHER = ([1, 2], [0.9, 0.1], {"ls": ":"})


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


def test_error_bars_end_at_the_interval():
    figure = cost({"cnn": ([10, 20], [0.9, 0.95], [(0.8, 0.92), None], {})}, "test accuracy")
    (ax,) = figure.axes
    (bars,) = (bars for container in ax.containers for bars in container.lines[2])
    ends = [sorted(y for _, y in segment) for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.8, 0.92]), pytest.approx([0.95, 0.95])]


def test_a_titled_png_is_higher_and_its_legend_stays():
    figure = curves({"loss": {"cnn": LINE}}, columns=1)
    assert as_png(figure) != as_png(figure, title="CNN on digits")
    assert figure.legends[0].get_title().get_text() == "CNN on digits"
    assert texts(figure) == ["cnn"]


def test_reported_figures_come_last_in_the_legend_and_once():
    figure = Figure()
    ax = figure.subplots()
    for epochs in (8, 30):
        figures.reported(ax, [epochs], [0.9], "cnn", "red")
    figures.error_bars(ax, [8], [0.8], [None], label="cnn")
    figures.legend(figure)
    assert texts(figure) == ["cnn", "reported: cnn"]
