"""The committed studies: their trials, their recorded results, and the published settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import ROOT

from stages.common.overrides import flatten, with_overrides
from stages.common.params import (
    Prepare,
    Train,
    model_names,
    parse_params,
    read_yaml,
    with_added,
)
from stages.reporting.targets import PUBLISHED, TARGETS, Published, read_entries
from studies.engine import driver
from studies.engine.grid import Study, read_study, trials
from studies.engine.search import SEARCH, Search

FOLDER = ROOT / "studies"
OTHERS = {ROOT / PUBLISHED, ROOT / TARGETS, ROOT / SEARCH}  # YAML files that are not studies
STUDIES: dict[str, Study] = {
    str(path.relative_to(FOLDER).with_suffix("")): read_study(path)
    for path in sorted(FOLDER.rglob("*.yaml"))
    if path not in OTHERS
}
ROWS_ONLY = {  # the first searches: their rows are kept, their trials are not
    f"searches/{data}{model}" for data in ("", "fashion_") for model in ("cnn", "lstm", "hybrid")
}
SEARCHES = [name for name in STUDIES if name.startswith("searches/")]
COPIES = [name for name, study in STUDIES.items() if study.published is not None]
DOCUMENT = read_yaml(ROOT / "params.yaml")
SPLIT = ("val_fraction", "split_seed")  # other keys of `prepare` are for own data, or younger
YOUNGER = {f"prepare.{key}" for key in DOCUMENT["prepare"] if key not in SPLIT}


def models_of(study: Study) -> set[str]:
    return {model for grid in study.grid for model in grid["model"]}


# --- recorded results ---------------------------------------------------------------------


def place(params: dict[str, Any], model: str, evaluate: str) -> str:
    """Return what identifies a trial, without reading its data."""
    keys = ("dataset", "epochs", "seed", "train", model)
    split = {key: params["prepare"][key] for key in SPLIT}
    return json.dumps([model, evaluate, split, {key: params[key] for key in keys}], sort_keys=True)


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, Any]]:
    """The recorded trials by `place`."""
    found = {}
    for path in (FOLDER / "trials").glob("*.json"):
        trial = json.loads(path.read_text(encoding="utf-8"))
        evaluate = "test" if "accuracy" in trial["result"] else "val"
        found[place(with_added(trial["job"]["params"]), trial["job"]["model"], evaluate)] = trial
    return found


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_results_follow_from_the_recorded_trials(
    name, recorded, tmp_path, monkeypatch
):
    study = STUDIES[name]
    found = [
        (trial, recorded.get(place(trial.params.model_dump(), trial.model, study.evaluate)))
        for trial in trials(study, DOCUMENT, study.cpus)
    ]
    if name in ROWS_ONLY:
        assert None in [known for _, known in found]
        return
    monkeypatch.setattr(driver, "RESULTS", tmp_path)
    monkeypatch.setattr(driver, "page", lambda *_: "")
    monkeypatch.setattr(driver, "overview", lambda *_: b"")
    finished = [(trial, known["result"], known["job"]["key"]) for trial, known in found]
    driver.write_results(name, study, finished, parse_params(DOCUMENT))
    for kind in ("csv", "json"):
        committed = FOLDER / f"results/{name}.{kind}"
        assert (tmp_path / f"{name}.{kind}").read_bytes() == committed.read_bytes()


def test_every_recorded_trial_belongs_to_a_study_or_a_search(recorded):
    known = {
        place(trial.params.model_dump(), trial.model, study.evaluate)
        for study in STUDIES.values()
        for trial in trials(study, DOCUMENT, study.cpus)
    }
    others = [trial for at, trial in recorded.items() if at not in known]
    assert [trial["job"]["key"] for trial in others if not in_search_space(trial)] == []


def in_search_space(trial: dict[str, Any]) -> bool:
    """Return whether a search can have proposed a recorded trial."""
    search = Search.model_validate(read_yaml(ROOT / SEARCH))
    model, params = trial["job"]["model"], with_added(trial["job"]["params"])
    section = params[model]
    return (
        "accuracy" not in trial["result"]
        and params["epochs"] == search.epochs
        and params["seed"] in (search.seed, *search.finalist_seeds)
        and all(section[key] in values for key, values in search.space.items())
        and section["flip"] in search.flip[params["dataset"]]
        and any(settings.items() <= section.items()
                for settings in search.architectures[model].values())
    )  # fmt: skip


# --- the comparison and the searches ------------------------------------------------------


def test_the_comparison_has_three_models_and_five_seeds_everywhere():
    found = trials(STUDIES["comparison"], DOCUMENT, cpus=1)
    places = [("mnist", e) for e in (10, 20, 30)] + [("fashion_mnist", e) for e in (8, 10, 20, 30)]
    assert sorted((t.params.dataset, t.params.epochs, t.model, t.params.seed) for t in found) == (
        sorted(
            (*at, model, seed) for at in places for model in model_names() for seed in range(1, 6)
        )
    )


def test_only_searches_use_the_validation_set_alone():
    assert [name for name, study in STUDIES.items() if study.evaluate == "val"] == SEARCHES


def own_recipe(dataset: str, epochs: int) -> dict[str, Any]:
    """Return what the comparison changes in params.yaml for a dataset and number of epochs."""
    changes = {}
    for rule in STUDIES["comparison"].when:
        assert set(rule) <= {"dataset", "epochs", "set"}
        if rule["dataset"] == dataset and epochs in rule.get("epochs", [epochs]):
            changes |= flatten(rule["set"])
    return changes


def test_sequences_need_the_order_of_their_frames():
    """The targets of the study: 0.985 for the hybrid, 0.90 for the LSTM, 0.20 without order."""
    found = json.loads((FOLDER / "results/digit_sequences.json").read_text(encoding="utf-8"))
    cells = {(cell["model"], cell.get("hybrid.kind") or cell.get("cnn.frames")): cell
             for cell in found}  # fmt: skip
    assert {cell["n"] for cell in found} == {3}
    assert cells["hybrid", "rows"]["accuracy_mean"] >= 0.985
    assert cells["lstm", None]["accuracy_mean"] >= 0.90
    assert cells["cnn", "mean"]["accuracy_mean"] <= 0.20


# --- published settings -------------------------------------------------------------------


def theirs(name: str) -> str:
    """Return the name of the variant that is not ours. Two sources state no recipe."""
    return "plain recipe" if name in ("mnist_cnn_vs_lstm", "conv2d_lstm") else "published recipe"


@pytest.mark.parametrize("name", COPIES)
def test_a_published_setting_and_our_recipe_have_three_seeds_each(name):
    seeds: dict[tuple[str, ...], set] = {}
    for trial in trials(STUDIES[name], DOCUMENT, cpus=1):
        seeds.setdefault(tuple(map(str, trial.cell.values())), set()).add(trial.params.seed)
    assert set(STUDIES[name].variants) == {theirs(name), "our recipe"}
    assert all(found == {1, 2, 3} for found in seeds.values())


@pytest.mark.parametrize("name", COPIES)
def test_a_published_setting_takes_nothing_from_params_yaml(name):
    sections = {"prepare": Prepare, "train": Train}
    sections |= {m: type(parse_params(DOCUMENT).models[m]) for m in models_of(STUDIES[name])}
    needed = {f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    assert set(STUDIES[name].variants[theirs(name)]) == needed - {"train.threads"} - YOUNGER


@pytest.mark.parametrize("name", COPIES)
def test_our_recipe_is_that_of_the_comparison(name):
    for trial in trials(STUDIES[name], DOCUMENT, cpus=1):
        if trial.cell["variant"] == "our recipe":
            recipe = own_recipe(trial.params.dataset, trial.params.epochs)
            wanted = parse_params(with_overrides(DOCUMENT, recipe))
            assert trial.section == wanted.models[trial.model]
            assert trial.params.train == wanted.train.model_copy(update={"threads": 1})
            assert trial.params.prepare == wanted.prepare


@pytest.mark.parametrize("name", COPIES)
def test_a_studys_reported_figures_are_those_of_published_yaml(name):
    sources = {entry.source for entry in STUDIES[name].published}
    known = [e for e in read_entries(ROOT / PUBLISHED, Published) if e.source in sources]
    assert list(STUDIES[name].published) == known


def described(layer) -> str | None:
    """Return a layer as a study file writes it, or None for ReLU and layers that move pixels.

    ReLU stands after the pooling here, which gives the same result as inside the convolution.
    """
    kind = type(layer).__name__
    if kind == "Conv2D":
        return f"Conv2D {layer.filters} {layer.kernel_size[0]}×{layer.kernel_size[1]}"
    if kind == "MaxPooling2D":
        return f"MaxPooling2D {layer.pool_size[0]}×{layer.pool_size[1]}"
    if kind in ("Dense", "LSTM"):
        return f"{kind} {layer.units}"
    if kind == "Dropout":
        return f"Dropout {layer.rate}" if layer.rate else None
    return None if kind in ("Rescaling", "Reshape", "ReLU") else kind


@pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name in COPIES for model in models_of(STUDIES[name])]
)
@pytest.mark.usefixtures("backend")
def test_a_published_model_has_its_layers_and_parameters(name, model):
    from stages.models import build

    trial = next(t for t in trials(STUDIES[name], DOCUMENT, cpus=1) if t.model == model)
    assert trial.cell["variant"] == theirs(name)
    built = build(model, (28, 28, 1), 10, trial.section)
    published = STUDIES[name].architectures[model]
    assert [text for layer in built.layers if (text := described(layer))] == published.layers
    assert built.count_params() == published.parameters
