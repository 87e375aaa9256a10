"""A study's means, intervals and comparisons, against SciPy, and its tables."""

from __future__ import annotations

import re
import shlex
from functools import partial

import numpy as np
import pytest
from scipy import stats
from study_data import invented_results

from stages.common.overrides import with_overrides
from stages.common.params import parse_params
from stages.evaluation.significance import holm
from studies.engine.summary import cells, command, paired, spread, table


@pytest.fixture
def make_results(tiny_document):
    """Return `invented_results` for the tiny parameters."""
    return partial(invented_results, tiny_document)


def accuracies(found, model: str, epochs: int) -> list[float]:
    return [
        figures["accuracy"]
        for trial, figures in found
        if (trial.model, trial.params.epochs) == (model, epochs)
    ]


# --- figures ------------------------------------------------------------------------------


def test_the_interval_is_students():
    values = np.array([0.9, 0.92, 0.95, 0.91])
    got = spread("x", values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert got["x_mean"] == pytest.approx(values.mean())
    assert got["x_std"] == pytest.approx(np.std(values, ddof=1))
    assert got["x_interval"] == pytest.approx([low, high])
    assert spread("x", values[:1]) == {"x_mean": 0.9, "x_std": None, "x_interval": None}


def test_the_paired_comparison_is_scipys():
    a, b = np.array([0.9, 0.92, 0.95, 0.91]), np.array([0.91, 0.9, 0.93, 0.9])
    expected = stats.ttest_rel(a, b)
    got = paired(a - b)
    assert (got["n"], got["p"]) == (4, pytest.approx(expected.pvalue))
    assert got["interval"] == pytest.approx(list(expected.confidence_interval(0.95)))


@pytest.mark.parametrize(("images", "n", "p"), [(0, 3, 1.0), (1, 2, 0.5), (25, 5, 0.0625)])
def test_equal_differences_are_no_certainty(images, n, p):
    """A t-test would give p = 0 for two seeds that both differ by one image of 6,000."""
    others = np.linspace(0.9, 0.95, n)
    got = paired((others + images / 6000) - others)
    assert (got["p"], got["interval"]) == (p, None)


def test_trials_that_differ_in_the_seed_only_are_one_cell(make_results):
    grid = {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]}
    _, found, committed = make_results(grid)
    made = cells(found, committed)
    assert [(c["dataset"], c["model"], c["epochs"], c["n"]) for c in made] == [
        ("digits", model, epochs, 3) for model in ("cnn", "lstm") for epochs in (1, 2)
    ]
    assert made[0]["accuracy_mean"] == pytest.approx(np.mean(accuracies(found, "cnn", 1)))
    assert made[0]["recipe"] == {}


@pytest.mark.parametrize(
    ("key", "value", "other"), [("model", "lstm", ("lstm", 1)), ("epochs", 2, ("cnn", 2))]
)
def test_cells_that_differ_in_one_key_are_compared(make_results, key, value, other):
    _, found, committed = make_results(
        {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]}
    )
    (entry,) = (e for e in cells(found, committed)[0]["against"] if e["key"] == key)
    one, two = accuracies(found, "cnn", 1), accuracies(found, *other)
    assert entry["value"] == value
    assert entry["difference"] == pytest.approx(np.mean(one) - np.mean(two))
    assert entry["p"] == entry["p_holm"] == pytest.approx(stats.ttest_rel(one, two).pvalue)


def test_comparisons_are_corrected_within_their_family(make_results):
    _, found, committed = make_results({"model": ["cnn", "lstm", "hybrid"], "seed": [1, 2, 3]})
    entries = [entry for cell in cells(found, committed) for entry in cell["against"]]
    assert len(entries) == 3
    assert [e["p_holm"] for e in entries] == pytest.approx(holm([e["p"] for e in entries]))


def test_the_order_of_a_grids_keys_does_not_matter(make_results):
    one = {"model": ["cnn"], "seed": [1, 2], "cnn.dropout": [0.1], "cnn.shift": [1]}
    other = {"cnn.shift": [1], "cnn.dropout": [0.1], "model": ["cnn", "lstm"], "seed": [2, 3]}
    _, found, committed = make_results([one, other])
    cnn, lstm = cells(found, committed)
    assert (cnn["seeds"], lstm["seeds"]) == ([1, 2, 3], [2, 3])
    assert [entry["value"] for entry in cnn["against"]] == ["lstm"]


# --- rows ---------------------------------------------------------------------------------


def test_a_trials_command_survives_a_change_of_params_yaml(make_results, tiny_document):
    base = {"cnn.dropout": 0.5, "lstm.dropout": 0.5, "epochs": 1}
    _, ((trial, _),), _ = make_results({"model": ["cnn"], "seed": [1]}, base=base)
    for dropout in (0.1, 0.5):
        document = with_overrides(tiny_document, {"cnn.dropout": dropout, "epochs": 7})
        line = command(trial, parse_params(document))
        settings = dict(word.split("=") for word in shlex.split(line) if "=" in word)
        assert (settings["cnn.dropout"], settings["epochs"]) == ("0.5", "1")
        assert "lstm.dropout" not in settings


# --- tables -------------------------------------------------------------------------------


def unpadded(text: str) -> list[str]:
    """Return the lines of a table without the spaces and dashes that align its columns."""
    return [
        re.sub(r" *(?<!\\)\| *", " | ", re.sub("--+", "--", line)).strip()
        for line in text.splitlines()
    ]


def test_the_table_has_a_column_per_model_and_the_reported_figures(make_results):
    entry = {"dataset": "digits", "loss": None, "source": "somebody", "note": None}
    study, found, committed = make_results(
        {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]},
        published=[
            entry | {"model": "cnn", "epochs": 2, "accuracy": 0.91},
            entry | {"model": "lstm", "epochs": None, "accuracy": 0.8},
            entry | {"model": "lstm", "epochs": 3, "accuracy": 0.7},
            entry | {"model": "lstm", "epochs": 1, "accuracy": 0.6, "dataset": "mnist"},
        ],
    )
    made = cells(found[:-1], committed)

    def shown(model: str, epochs: int) -> str:
        values = [100 * accuracy for accuracy in accuracies(found[:-1], model, epochs)]
        text = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        return text if len(values) == 3 else f"{text} (n = {len(values)})"

    assert unpadded(table(study, made)) == [
        "| dataset | epochs | cnn | lstm | reported |",
        "| -- | --: | --: | --: | -- |",
        f"| digits | 1 | {shown('cnn', 1)} | {shown('lstm', 1)} | lstm 80.00* |",
        f"| digits | 2 | {shown('cnn', 2)} | {shown('lstm', 2)} | cnn 91.00, lstm 80.00* |",
    ]


def test_the_table_of_a_search_has_variants_and_no_reported_figures(make_results):
    study, found, committed = make_results(
        {"model": ["cnn"], "epochs": [1], "seed": [1]}, evaluate="val", variants={"a|b": {}}
    )
    (_, figures), *_ = found
    assert unpadded(table(study, cells(found, committed)))[::2] == [
        "| dataset | variant | epochs | cnn |",
        f"| digits | a\\|b | 1 | {100 * figures['val_accuracy']:.2f} |",
    ]


def test_grids_may_have_different_keys(make_results):
    plain = {"model": ["cnn"], "seed": [1, 2]}
    batches = plain | {"train.batch_size": [32, 64]}
    for grids in ([plain, batches], [batches, plain]):
        study, found, committed = make_results(grids)
        lines = unpadded(table(study, cells(found, committed)))
        assert lines[0] == "| dataset | train.batch_size | epochs | cnn | reported |"
        assert sorted(line.split(" | ")[1] for line in lines[2:]) == ["", "32", "64"]


@pytest.mark.parametrize(("reached", "note"), [(0.9944, " (below 99.45)"), (0.9945, "")])
def test_a_mean_of_the_committed_recipe_below_its_target_is_marked(make_results, reached, note):
    grid = {"dataset": ["mnist"], "model": ["cnn"], "epochs": [10], "seed": [1, 2, 3]}
    for others, text in (({}, note), ({"variants": {"theirs": {}}}, "")):
        study, found, committed = make_results(grid, published=[], **others)
        found = [(trial, figures | {"accuracy": reached}) for trial, figures in found]
        assert f"{100 * reached:.2f} ± 0.00{text} |" in table(study, cells(found, committed))
