"""The committed studies: what they say was published, and their stages in studies/dvc.yaml."""

from __future__ import annotations

import csv
import hashlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from test_dvc_yaml import files_of, paths

from stages.expected import PUBLISHED, Published, read_entries
from stages.params import MODELS, Params, Prepare, Train, parse_params, read_yaml
from stages.study.file import concerns, flat, read_study, trials, with_settings


def stages_of(file: str) -> dict[str, dict[str, Any]]:
    """Return each stage of a dvc.yaml, those of a `foreach` written out, as DVC names them."""
    found = {}
    for name, stage in yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"].items():
        for key, item in stage.get("foreach", {}).items():
            text = yaml.safe_dump(stage["do"]).replace("${key}", key).replace("${item}", item)
            found[f"{name}@{key}"] = yaml.safe_load(text)
        if "foreach" not in stage:
            found[name] = stage
    return found


def study_of(stage: str) -> str:
    return stage.replace("search@", "search_")


STAGES = {study_of(name): stage for name, stage in stages_of("studies/dvc.yaml").items()}
STUDIES = {name: read_study(ROOT / f"studies/{name}.yaml") for name in STAGES}
SEARCHES = {name: study for name, study in STUDIES.items() if name.startswith("search_")}
ROWS_ONLY = {  # the first searches, of which no trials are kept: to record them is to train them
    "search_cnn", "search_lstm", "search_hybrid",
    "search_fashion_cnn", "search_fashion_lstm", "search_fashion_hybrid",
}  # fmt: skip
COPIES = {name: study for name, study in STUDIES.items() if name not in {"comparison", *SEARCHES}}
DOCUMENT = read_yaml(ROOT / "params.yaml")
NAMED_ONLY = {  # by what of expected.py a study does not call, and in an error
    "studies/floors.yaml",
    "studies/requirements.txt",
}
OTHERS = {"dvc", "floors", "published"}  # YAML files in studies/ that are none


def test_every_study_has_a_stage():
    files = {path.stem for path in (ROOT / "studies").glob("*.yaml")} - OTHERS
    assert set(STAGES) == files
    assert set(STUDIES) > {"comparison"}


def test_searches_and_they_alone_keep_to_the_validation_set():
    searches = {name for name in STUDIES if name.startswith("search_")}
    assert searches == {name for name, study in STUDIES.items() if study.evaluate == "val"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_file_and_on_all_that_a_study_imports(name):
    needed = files_of("stages/study/__main__.py") - NAMED_ONLY
    beside = {path for path in needed if not path.startswith("stages/")}
    assert set(paths(STAGES[name]["deps"])) == {"stages", f"studies/{name}.yaml"} | beside
    assert STAGES[name]["cmd"] == f"python -m stages.study studies/{name}.yaml"
    assert STAGES[name]["wdir"] == ".."
    assert paths(STAGES[name]["outs"]) == [
        f"studies/results/{name}.{kind}" for kind in ("csv", "json", "html", "png")
    ]


def test_the_lock_has_the_committed_results_of_all_whose_trials_are_kept():
    text = (ROOT / "studies/dvc.lock").read_text(encoding="utf-8")
    locked = yaml.safe_load(text)["stages"]
    assert set(STAGES) - {study_of(name) for name in locked} == ROWS_ONLY
    for stage in locked.values():
        for out in stage["outs"]:
            if Path(out["path"]).suffix in (".csv", ".json"):
                content = (ROOT / out["path"]).read_bytes()
                assert out["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_parameters_that_its_study_takes_over(name):
    models = {model for grid in STUDIES[name].grid for model in grid["model"]}
    assert set(STAGES[name]["params"]) == {"prepare", "train"} | models
    for grid in STUDIES[name].grid:
        assert {"dataset", "epochs", "seed"} <= set(grid), "the others are the study's own"


def test_the_comparison_has_its_90_trials_and_those_of_8_epochs():
    found = trials(STUDIES["comparison"], DOCUMENT, cpus=1)
    cells = [
        (dataset, epochs)
        for dataset in ("mnist", "fashion_mnist")
        for epochs in (8, 10, 20, 30)
        if (dataset, epochs) != ("mnist", 8)
    ]
    assert sorted((t.params.dataset, t.params.epochs, t.model, t.params.seed) for t in found) == (
        sorted((*cell, model, seed) for cell in cells for model in MODELS for seed in range(1, 6))
    )


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_on_validation_data_and_says_what_it_started_from(name):
    study = SEARCHES[name]
    assert study.evaluate == "val"
    changed = {key for variant in study.variants.values() for key in variant}
    assert set(study.base) >= changed
    assert (ROOT / f"studies/results/{name}.json").exists(), "RECIPES.md quotes it"


@pytest.mark.parametrize("name", STAGES)
def test_the_line_of_every_recorded_trial_repeats_what_the_file_says(name):
    named = ("dataset", "model", "epochs", "seed", "variant")
    made = {
        tuple(str((trial.cell | {"seed": trial.params.seed}).get(key, "")) for key in named): trial
        for trial in trials(STUDIES[name], DOCUMENT, cpus=1)
    }
    with (ROOT / f"studies/results/{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        trial = made[tuple(row.get(key, "") for key in named)]
        words = [word for word in shlex.split(row["command"])[3:] if word != "-S"]
        settings = {key: yaml.safe_load(value) for key, value in (w.split("=") for w in words)}
        assert settings.keys() >= {key for key in trial.settings if concerns(trial.model, key)}
        repeated = flat(parse_params(with_settings(DOCUMENT, settings)).model_dump())
        for key, value in flat(trial.params.model_dump()).items():
            assert repeated[key] == value or not concerns(trial.model, key)


@pytest.mark.parametrize("name", COPIES)
def test_a_published_setting_is_run_with_three_seeds_beside_our_recipe(name):
    found = trials(COPIES[name], DOCUMENT, cpus=1)
    seeds: dict[str, set] = {}
    for trial in found:
        cell = repr({key: value for key, value in trial.cell.items() if key != "variant"})
        seeds.setdefault(f"{trial.cell['variant']} {cell}", set()).add(trial.params.seed)
    assert {key.split(" {")[0] for key in seeds} == {theirs(name), "our recipe"}
    assert all(found == {1, 2, 3} for found in seeds.values())


@pytest.mark.parametrize("name", COPIES)
def test_a_published_setting_takes_nothing_from_params_yaml(name):
    models = {model for grid in COPIES[name].grid for model in grid["model"]}
    sections = {"prepare": Prepare, "train": Train} | {
        model: Params.model_fields[model].annotation for model in models
    }
    needed = {f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    assert set(COPIES[name].variants[theirs(name)]) == needed - {"train.threads"}


def theirs(name: str) -> str:
    """Return the variant that is not ours: where nobody published a recipe, it says so."""
    return "plain recipe" if name in ("mnist_cnn_vs_lstm", "conv2d_lstm") else "published recipe"


def own_recipe(dataset: str, epochs: int) -> dict[str, Any]:
    """Return what the comparison changes in params.yaml for a data set and number of epochs."""
    changes = {}
    for rule in STUDIES["comparison"].when:
        assert set(rule) <= {"dataset", "epochs", "set"}
        if rule["dataset"] == dataset and epochs in rule.get("epochs", [epochs]):
            changes |= flat(rule["set"])
    return changes


@pytest.mark.parametrize("name", COPIES)
def test_our_recipe_is_that_of_params_yaml_or_where_there_is_another_the_comparisons(name):
    for trial in trials(COPIES[name], DOCUMENT, cpus=1):
        if trial.cell["variant"] == "our recipe":
            recipe = own_recipe(trial.params.dataset, trial.params.epochs)
            wanted = parse_params(with_settings(DOCUMENT, recipe))
            assert trial.section == getattr(wanted, trial.model)
            assert trial.params.train == wanted.train.model_copy(update={"threads": 1})
            assert trial.params.prepare == wanted.prepare


@pytest.mark.parametrize("name", COPIES)
def test_a_studys_published_figures_are_those_that_the_report_shows(name):
    sources = {entry.source for entry in COPIES[name].published}
    known = [e for e in read_entries(ROOT / PUBLISHED, Published) if e.source in sources]
    assert list(COPIES[name].published) == known


def described(layer) -> str | None:
    """Return a layer as a study's file writes it; None for what arranges pixels, and for ReLU.

    ReLU stands after the pooling here, which computes what it does inside the convolution.
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
    ("name", "model"), [(name, model) for name, s in COPIES.items() for model in s.architectures]
)
def test_a_published_model_has_its_layers_and_parameters(name, model):
    from stages.models import build

    trial = next(t for t in trials(COPIES[name], DOCUMENT, cpus=1) if t.model == model)
    assert trial.cell["variant"] == theirs(name)
    built = build(model, (28, 28, 1), 10, trial.section)
    published = COPIES[name].architectures[model]
    assert [text for layer in built.layers if (text := described(layer))] == published.layers
    assert built.count_params() == published.parameters


def test_every_model_of_a_published_setting_has_its_layers_listed():
    for name, study in COPIES.items():
        models = {model for grid in study.grid for model in grid["model"]}
        assert set(study.architectures) == models, name


def test_the_root_pipeline_does_not_run_the_studies(pipeline):
    assert not re.search("studies", pipeline.dvc("repro", "--dry"))
    assert "'studies/dvc.yaml:mnist_row_lstm'" in pipeline.dvc(
        "repro", "--dry", "--allow-missing", "studies/dvc.yaml:mnist_row_lstm"
    )


def test_the_commands_are_the_recipes_of_the_comparison():
    text = (ROOT / "studies/RECIPES.md").read_text(encoding="utf-8")
    recipes = set()
    for command in re.findall(r"^dvc exp run ((?:.*\\\n)*.*)$", text, re.M):
        settings = dict(re.findall(r"-S '?([^\s=]+)=([^\s']+)", command))
        place = settings.pop("dataset", "mnist"), int(settings.pop("epochs"))
        recipes.add(place)
        recipe = own_recipe(*place)
        assert {key: yaml.safe_load(value) for key, value in settings.items()} == recipe != {}
    fashion = {("fashion_mnist", epochs) for epochs in (8, 20, 30)}
    assert recipes == {("mnist", 20), ("mnist", 30)} | fashion, "each that differs"
