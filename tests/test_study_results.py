"""A study's figures against SciPy's, and its page with names that try to be HTML."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy import stats

from stages import figures as drawing
from stages.params import parse_params
from stages.statistics import holm
from stages.study.file import Study, trials, with_settings
from stages.study.page import overview, page, verdicts
from stages.study.results import cells, command, costs, paired, row, spread, table

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def results(tiny_document):
    """Return a function that makes a study's trials with made-up figures, and its study."""

    def make(grid: dict, **others):
        study = Study.model_validate(
            {"description": "a test", "evaluate": "test", "grid": grid} | others
        )
        random = np.random.default_rng(0)
        found = []
        for trial in trials(study, tiny_document, cpus=1):
            accuracy = float(random.normal(0.9, 0.01))
            figures = {
                "accuracy": accuracy, "loss": 1 - accuracy, "macro_f1": accuracy, "errors": 5,
                "val_accuracy": accuracy - 0.01, "val_loss": 0.3, "parameters": 99,
                "epochs_run": trial.params.epochs, "train_seconds": random.uniform(1, 9),
                "seconds_per_epoch": 1.0, "processor": "made up",
                "threads": {"intra_op": 1, "inter_op": 1, "batch_parts": 2},
            }  # fmt: skip
            if study.evaluate == "val":
                for key in ("accuracy", "loss", "macro_f1", "errors"):
                    del figures[key]
            found.append((trial, figures))
        return study, found, parse_params(tiny_document)

    return make


def test_the_spread_is_students():
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
    assert got["p"] == pytest.approx(expected.pvalue)
    assert got["interval"] == pytest.approx(list(expected.confidence_interval(0.95)))
    assert got["n"] == 4


@pytest.mark.parametrize(("images", "n", "p"), [(0, 3, 1.0), (1, 2, 0.5), (25, 5, 0.0625)])
def test_seeds_that_all_differ_alike_are_no_certainty(images, n, p):
    """As t-test, two seeds that differ by one image of 6,000 each would have p = 0."""
    others = np.linspace(0.9, 0.95, n)
    got = paired((others + images / 6000) - others)
    assert (got["p"], got["interval"]) == (p, None)


def test_a_cell_is_what_differs_in_the_seed_alone(results):
    grid = {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]}
    _, found, committed = results(grid)
    made = cells(found, committed)
    assert [(c["dataset"], c["model"], c["epochs"], c["n"]) for c in made] == [
        ("digits", model, epochs, 3) for model in ("cnn", "lstm") for epochs in (1, 2)
    ]
    first = [figures["accuracy"] for trial, figures in found[:3]]
    assert made[0]["accuracy_mean"] == pytest.approx(np.mean(first))
    other = [figures["accuracy"] for trial, figures in found[6:9]]
    comparison, _ = made[0]["against"]  # and with the other number of epochs
    assert (comparison["key"], comparison["value"]) == ("model", "lstm")
    assert comparison["p"] == pytest.approx(stats.ttest_rel(first, other).pvalue)
    assert comparison["p_holm"] == comparison["p"], "one comparison in its family"


def test_the_order_of_a_grids_keys_does_not_part_a_cell(results):
    one = {"model": ["cnn"], "seed": [1, 2], "cnn.dropout": [0.1], "cnn.shift": [1]}
    other = {"cnn.shift": [1], "cnn.dropout": [0.1, 0.2], "model": ["cnn"], "seed": [3, 4]}
    _, found, committed = results([one, other])
    made = cells(found, committed)
    assert [(c["cnn.dropout"], c["n"], c["seeds"]) for c in made] == [
        (0.1, 4, [1, 2, 3, 4]),
        (0.2, 2, [3, 4]),
    ]


def test_the_order_of_a_grids_keys_does_not_part_a_family(results):
    one = {"model": ["cnn"], "seed": [1, 2], "train.clip_norm": [0.0], "train.batch_size": [64]}
    other = {"train.batch_size": [64], "train.clip_norm": [0.0], "model": ["lstm"], "seed": [1, 2]}
    _, found, committed = results([one, other])
    assert [len(cell["against"]) for cell in cells(found, committed)] == [1, 0]


def test_comparisons_are_corrected_within_their_family(results):
    _, found, committed = results({"model": ["cnn", "lstm", "hybrid"], "seed": [1, 2, 3]})
    entries = [entry for cell in cells(found, committed) for entry in cell["against"]]
    assert len(entries) == 3
    assert [e["p_holm"] for e in entries] == pytest.approx(holm([e["p"] for e in entries]))


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("data/my.npz", "dataset=data/my.npz"),
        ("my data/own set.npz", "'dataset=\"my data/own set.npz\"'"),
        ("données.npz", "'dataset=\"données.npz\"'"),
        (r"own\set.npz", r"""'dataset="own\set.npz"'"""),
        (r"own\".npz", r"""'dataset="own\\\".npz"'"""),
        ("own\\", r"""'dataset="own\\"'"""),
        ('a="b".npz', """'dataset="a=\\"b\\".npz"'"""),
    ],
)
def test_a_path_is_quoted_for_the_shell_and_for_hydra(results, path, quoted):
    _, found, _ = results({"model": ["cnn"], "seed": [1]})
    params = found[0][0].params
    trial = replace(found[0][0], params=params.model_copy(update={"dataset": path}))
    line = command(trial, params)
    assert f"-S {quoted} " in line
    override = shlex.split(line)[4]
    parsed = OverridesParser.create().parse_override(override)
    assert parsed.value() == path


def test_variants_of_a_model_are_compared_and_their_recipe_is_told(results):
    variants = {"plain": {"lstm.dense": 0}, "ours": {}}
    _, found, committed = results({"model": ["lstm"], "seed": [1, 2]}, variants=variants)
    plain, ours = cells(found, committed)
    assert (plain["variant"], plain["recipe"]) == ("plain", {"lstm.dense": 0})
    assert (ours["variant"], ours["recipe"]) == ("ours", {})
    assert [(e["key"], e["value"]) for e in plain["against"]] == [("variant", "ours")]


def test_numbers_of_epochs_are_compared_model_by_model(results):
    _, found, committed = results({"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]})
    made = {(cell["model"], cell["epochs"]): cell for cell in cells(found, committed)}
    entries = [entry for entry in made["cnn", 1]["against"] if entry["key"] == "epochs"]
    assert [entry["value"] for entry in entries] == [2]
    one, two = (
        [figures["accuracy"] for trial, figures in found
         if (trial.model, trial.params.epochs) == ("cnn", epochs)]
        for epochs in (1, 2)
    )  # fmt: skip
    assert entries[0]["difference"] == pytest.approx(np.mean(one) - np.mean(two))
    assert entries[0]["p_holm"] == pytest.approx(stats.ttest_rel(one, two).pvalue)


def test_the_verdict_gives_differences_from_the_best_and_their_intervals(results):
    grid = {"model": ["cnn", "lstm"], "epochs": [1, 2], "seed": [1, 2, 3]}
    _, found, committed = results(grid)
    for trial, figures in found:
        figures["accuracy"] = (  # the LSTM is better, with its second epoch by about 2 points
            0.90 + 0.002 * trial.params.seed + (trial.model == "lstm") * 0.01 * trial.params.epochs
            - 0.001 * (trial.model == "cnn" and trial.params.seed == 2)
        )  # fmt: skip
    said = verdicts(cells(found, committed))
    low, high = stats.ttest_1samp([0.02, 0.021, 0.02], 0).confidence_interval(0.95)
    assert said[1] == (
        "digits, 2 epochs: lstm has the highest mean accuracy, 92.40 % ± 0.20 (n = 3); more than "
        f"luck in the seeds against cnn (+2.03, {100 * low:.2f} to {100 * high:.2f}, p < 0.001)."
    )
    assert said[0].startswith("digits, 1 epochs: lstm has the highest mean accuracy, 91.40 %")
    assert said[2].startswith("digits, cnn: most accurate after 1 epochs, 90.37 %")
    assert said[2].endswith("not distinguishable from 2 (+0.00, p = 1).")
    assert said[3] == (
        "digits, lstm: most accurate after 2 epochs, 92.40 % ± 0.20 (n = 3); "
        "not distinguishable from 1 (+1.00, p = 0.25)."
    ), "three seeds that differ alike"
    assert len(said) == 4


def test_grids_may_differ_in_their_keys(results):
    plain = {"model": ["cnn"], "seed": [1, 2]}
    varied = plain | {"train.batch_size": [32, 64]}
    for grids in ([plain, varied], [varied, plain]):
        study, found, committed = results(grids)
        made = cells(found, committed)
        lines = table(study, made).splitlines()
        assert lines[0] == "| data | train.batch_size | epochs | cnn | published |"
        assert sorted(line.split(" | ")[1] for line in lines[2:]) == ["", "32", "64"]
        assert page("name", study, made, [row(*pair, "d", committed) for pair in found])


def test_the_cost_is_the_median_of_the_seconds_of_training(results):
    _, found, committed = results({"model": ["cnn", "lstm"], "seed": [1, 2, 3]})
    seconds = [
        np.median([figures["train_seconds"] for trial, figures in found if trial.model == model])
        for model in ("cnn", "lstm")
    ]
    epochs = found[0][0].params.epochs
    assert costs(cells(found, committed)).splitlines() == [
        "| data | epochs | cnn | lstm |",
        "| --- | --: | --: | --: |",
        f"| digits | {epochs} | {seconds[0]:.0f} | {seconds[1]:.0f} |",
    ]


def test_a_trials_line_repeats_it_as_an_experiment(results):
    grid = {"model": ["cnn"], "seed": [1], "cnn.filters": [[4, 8]], "cnn.batch_norm": [False]}
    _, found, committed = results(grid)
    line = command(found[0][0], committed)
    assert line == (
        "dvc exp run -S seed=1 -S train.threads=1 -S 'cnn.filters=[4,8]' -S cnn.batch_norm=false"
    )
    written = row(*found[0], digest="d", committed=committed)
    assert written["command"] == line
    assert list(written)[:4] == ["dataset", "model", "epochs", "seed"]


def test_a_trials_line_holds_when_params_yaml_changes_what_the_study_set(results, tiny_document):
    base = {"cnn.dropout": 0.5, "lstm.dropout": 0.5, "epochs": 1}
    _, ((trial, _),), _ = results({"model": ["cnn"], "seed": [1]}, base=base)
    for dropout in (0.1, 0.5):
        document = with_settings(tiny_document, {"cnn.dropout": dropout, "epochs": 7})
        line = command(trial, parse_params(document))
        settings = dict(word.split("=") for word in shlex.split(line) if "=" in word)
        assert (settings["cnn.dropout"], settings["epochs"]) == ("0.5", "1")
        assert "lstm.dropout" not in settings


def test_the_table_has_models_side_by_side_with_what_was_published(results):
    entry = {"dataset": "digits", "loss": None, "source": "somebody", "note": None}
    study, found, committed = results(
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
        values = [
            100 * figures["accuracy"]
            for trial, figures in found[:-1]
            if (trial.model, trial.params.epochs) == (model, epochs)
        ]
        text = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        return text if len(values) == 3 else f"{text} (n = {len(values)})"

    assert table(study, made).splitlines() == [
        "| data | epochs | cnn | lstm | published |",
        "| --- | --: | --: | --: | --- |",
        f"| digits | 1 | {shown('cnn', 1)} | {shown('lstm', 1)} | lstm 80.00* |",
        f"| digits | 2 | {shown('cnn', 2)} | {shown('lstm', 2)} | cnn 91.00, lstm 80.00* |",
    ]


def test_the_table_of_a_search_has_its_variants_and_nothing_published(results):
    study, found, committed = results(
        {"model": ["cnn"], "epochs": [1], "seed": [1]}, evaluate="val", variants={"a|b": {}}
    )
    (_, figures), *_ = found
    assert table(study, cells(found, committed)).splitlines()[::2] == [
        "| data | variant | epochs | cnn |",
        f"| digits | a\\|b | 1 | {100 * figures['val_accuracy']:.2f} |",
    ]


@pytest.mark.parametrize(("reached", "told"), [(0.9944, " (below 99.45)"), (0.9945, "")])
def test_a_mean_below_its_floor_says_so_in_the_table(results, reached, told):
    grid = {"dataset": ["mnist"], "model": ["cnn"], "epochs": [10], "seed": [1]}
    for others, word in (({}, told), ({"variants": {"theirs": {}}}, "")):
        study, found, committed = results(grid, published=[], **others)
        found = [(trial, figures | {"accuracy": reached}) for trial, figures in found]
        assert f"{100 * reached:.2f}{word} |" in table(study, cells(found, committed))


@pytest.mark.parametrize("evaluate", ["test", "val"])
@pytest.mark.parametrize("epochs", [[1], [1, 2]])
def test_the_page_holds_whatever_its_cells_are_called(results, evaluate, epochs):
    study, found, committed = results(
        {"model": ["cnn", "lstm"], "epochs": epochs, "seed": [1, 2], "train.clip_norm": [0.0, 1.0]},
        variants={HOSTILE: {}, "ours $x": {"train.batch_size": 64}},
        evaluate=evaluate,
        published=[
            {"dataset": "digits", "model": model, "epochs": known, "accuracy": 0.9, "loss": None,
             "source": HOSTILE, "note": None}
            for model, known in (("cnn", 1), ("lstm", None), ("another", 1))
        ],
    )  # fmt: skip
    rows = [row(trial, figures, "d", committed) for trial, figures in found]
    text = page("tiny", study, cells(found, committed), rows)
    assert HOSTILE not in text
    assert text.count("<svg") == 2
    assert "Content-Security-Policy" in text
    assert ("test set was not opened" in text) == (evaluate == "val")


def test_the_overview_has_a_panel_a_data_set_with_each_curve_named_once(results, monkeypatch):
    study, found, committed = results(
        {"dataset": ["mnist", "digits"], "model": ["cnn", "lstm"], "epochs": [1, 2],
         "seed": [1, 2]},
        published=[{"dataset": "mnist", "model": "cnn", "epochs": 1, "accuracy": 0.9,
                    "loss": None, "source": "here", "note": None}],
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(drawing, "as_png", lambda image, *_: drawn.append(image) or b"")
    rows = [row(trial, result, "d", committed) for trial, result in found]
    overview(study, cells(found, committed), rows)
    (image,) = drawn
    assert [ax.get_title() for ax in image.axes] == ["mnist", "digits"]
    (legend,) = image.legends
    assert [text.get_text() for text in legend.get_texts()] == ["published: cnn", "cnn", "lstm"]
    for ax in image.axes:
        means = {bars.get_label(): list(bars.lines[0].get_ydata()) for bars in ax.containers}
        assert means == {
            cell["model"]: [
                other["accuracy_mean"] for other in cells(found, committed)
                if (other["dataset"], other["model"]) == (ax.get_title(), cell["model"])
            ]
            for cell in cells(found, committed)
        }  # fmt: skip


def test_the_page_of_a_single_trial_says_that_there_is_nothing_to_compare(results):
    study, found, committed = results({"model": ["cnn"], "seed": [1]}, published=[])
    rows = [row(*found[0], "d", committed)]
    text = page("tiny", study, cells(found, committed), rows)
    assert "Nothing to compare" in text
    assert "In parentheses" not in text
    assert "Nothing published is known" in text
    assert "one seed" in text


def test_the_page_claims_nothing_of_seeds_that_all_differ_alike(results):
    study, found, committed = results({"model": ["cnn", "lstm"], "seed": [1, 2]}, published=[])
    accuracies = {"cnn": 0.91, "lstm": 0.90}
    found = [
        (trial, figures | {"accuracy": accuracies[trial.cell["model"]] + trial.params.seed / 100})
        for trial, figures in found
    ]
    rows = [row(trial, figures, "d", committed) for trial, figures in found]
    text = page("tiny", study, cells(found, committed), rows)
    assert "<td>+1.00</td><td>no spread</td><td>p = 0.5</td>" in text
    assert "not distinguishable from lstm (+1.00, p = 0.5)" in text
