"""The page, the sentences and the figure of a study."""

from __future__ import annotations

from functools import partial

import pytest
from scipy import stats
from study_data import invented_results

from stages.reporting import figures
from studies.engine.page import matrix, overview, page, verdicts
from studies.engine.summary import cells, row

HOSTILE = '"><img src=x onerror=alert(1)>'
REPORTED = {"dataset": "digits", "model": "cnn", "epochs": 1, "accuracy": 0.9, "loss": None,
            "source": HOSTILE, "note": None}  # fmt: skip


@pytest.fixture
def make_results(tiny_document):
    """Return `invented_results` for the tiny parameters."""
    return partial(invented_results, tiny_document)


def rows_of(found, committed) -> list[dict]:
    return [row(*pair, "key", committed) for pair in found]


def test_sentences_give_differences_with_their_intervals(make_results):
    grid = {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]}
    _, found, committed = make_results(grid)
    for trial, result in found:  # the LSTM is better by about 1 point per epoch
        result["accuracy"] = (
            0.90 + 0.002 * trial.params.seed + (trial.model == "lstm") * 0.01 * trial.params.epochs
            - 0.001 * (trial.model == "cnn" and trial.params.seed == 2)
        )  # fmt: skip
    low, high = stats.ttest_1samp([0.02, 0.021, 0.02], 0).confidence_interval(0.95)
    one, two, cnn, lstm = verdicts(cells(found, committed))
    assert one.startswith(
        "digits, 1 epoch: lstm has the highest mean test accuracy, 91.40 ± 0.20 %"
    )
    assert two == (
        "digits, 2 epochs: lstm has the highest mean test accuracy, 92.40 ± 0.20 % (n = 3); "
        f"significantly better than cnn (+2.03, +{100 * low:.2f} to +{100 * high:.2f}, p < 0.001)."
    )
    assert cnn.startswith("digits, cnn: best after 1 epoch, 90.37 ")
    assert cnn.endswith("not significantly better than 2 epochs (+0.00, p = 1).")
    assert lstm == (  # three equal differences have no interval
        "digits, lstm: best after 2 epochs, 92.40 ± 0.20 % (n = 3); "
        "not significantly better than 1 epoch (+1.00, p = 0.25)."
    )


def test_the_matrix_marks_means_that_are_not_significantly_lower(make_results):
    _, found, committed = make_results({"model": ["cnn", "lstm", "hybrid"], "seed": [1, 2, 3]})
    lower = {"cnn": 0, "lstm": 0.05, "hybrid": 0.0001}
    for trial, result in found:
        noise = 0.003 * ((trial.params.seed + len(trial.model)) % 3)
        result["accuracy"] = 0.95 - lower[trial.model] + noise
    ((epochs, row),) = matrix(cells(found, committed)).items()
    assert epochs == found[0][0].params.epochs
    assert {name: cell["leads"] for name, cell in row.items()} == {
        "cnn": True, "lstm": False, "hybrid": True
    }  # fmt: skip


@pytest.mark.parametrize("evaluate", ["test", "val"])
@pytest.mark.parametrize("epochs", [[1], [1, 2]])
def test_the_page_escapes_names_and_has_both_figures(make_results, evaluate, epochs):
    study, found, committed = make_results(
        {"model": ["cnn", "lstm"], "epochs": epochs, "seed": [1, 2], "train.clip_norm": [0.0, 1.0]},
        variants={HOSTILE: {}, "ours $x": {"train.batch_size": 64}},
        evaluate=evaluate,
        published=[REPORTED, REPORTED | {"model": "lstm", "epochs": None},
                   REPORTED | {"model": "another"}],
    )  # fmt: skip
    text = page("tiny", study, cells(found, committed), rows_of(found, committed))
    assert HOSTILE not in text
    assert text.count("<svg") == 2
    assert "Content-Security-Policy" in text
    assert ("never loads the test set" in text) == (evaluate == "val")


def test_the_page_of_one_trial_has_nothing_to_compare(make_results):
    study, found, committed = make_results({"model": ["cnn"], "seed": [1]}, published=[])
    text = page("tiny", study, cells(found, committed), rows_of(found, committed))
    assert "There is nothing to compare" in text
    assert "In parentheses" not in text
    assert "no reported figures" in text
    assert "one seed" in text


def test_equal_differences_have_no_interval(make_results):
    study, found, committed = make_results({"model": ["cnn", "lstm"], "seed": [1, 2]}, published=[])
    for trial, result in found:
        result["accuracy"] = {"cnn": 0.91, "lstm": 0.90}[trial.model] + trial.params.seed / 100
    text = page("tiny", study, cells(found, committed), rows_of(found, committed))
    assert "<td>+1.00</td><td>none</td><td>p = 0.5</td>" in text


def test_grids_may_have_different_keys(make_results):
    plain = {"model": ["cnn"], "seed": [1, 2]}
    grids = [plain, plain | {"train.batch_size": [32, 64]}]
    study, found, committed = make_results(grids)
    text = page("tiny", study, cells(found, committed), rows_of(found, committed))
    assert "cnn with train.batch_size 64" in text


def test_the_overview_has_one_panel_per_dataset(make_results, monkeypatch):
    study, found, committed = make_results(
        {"dataset": ["mnist", "digits"], "model": ["cnn", "lstm"], "epochs": [1, 2],
         "seed": [1, 2]},
        published=[REPORTED | {"dataset": "mnist"}],
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(figures, "as_png", lambda image, *_: drawn.append(image) or b"")
    made = cells(found, committed)
    overview(study, made, rows_of(found, committed))
    (image,) = drawn
    assert [ax.get_title() for ax in image.axes] == ["mnist", "digits"]
    (legend,) = image.legends
    assert [text.get_text() for text in legend.get_texts()] == ["cnn", "lstm", "reported: cnn"]
    for ax in image.axes:
        for bars in ax.containers:
            place = (ax.get_title(), bars.get_label())
            wanted = [c["accuracy_mean"] for c in made if (c["dataset"], c["model"]) == place]
            assert list(bars.lines[0].get_ydata()) == wanted
