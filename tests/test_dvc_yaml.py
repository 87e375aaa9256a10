"""`dvc.yaml` against the code: stages declare exactly what they import, read and plot."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from test_layout import imported, tree

from stages.common.params import model_names

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
MODELS = [name.removeprefix("train_") for name in STAGES if name.startswith("train_")]
INIT = "stages/__init__.py"  # not declared: it only sets up Ctrl-C
KINDS = ("outs", "metrics", "plots")


def paths(entries: list) -> list[str]:
    """Return the paths of `deps`, `outs`, `metrics` or `plots`, without their options."""
    return [path for entry in entries for path in (entry if isinstance(entry, dict) else [entry])]


def outputs(name: str) -> list[str]:
    return [path for kind in KINDS for path in paths(STAGES[name].get(kind, []))]


def script(name: str) -> str:
    return f"stages/{re.fullmatch(r'python -m stages.(.+?)( .+)?', STAGES[name]['cmd'])[1]}.py"


def covers(declared: str, path: str) -> bool:
    return Path(path).is_relative_to(declared)


def needed(name: str) -> set[str]:
    """Return the Python files that a stage runs, also those imported inside functions.

    A training stage also imports the file of its model, by name. All stages import all model files
    to check `params.yaml`, but only use their own.
    """
    found: set[str] = set()
    waiting = {script(name)}
    if name.startswith("train_"):
        waiting.add(f"stages/models/{name.removeprefix('train_')}.py")
    while waiting:
        found |= waiting
        waiting = set().union(*(imported(path) for path in waiting)) - found
    return found - {INIT}


def texts(name: str) -> Iterator[str]:
    """Yield the string constants in a stage's code, also the parts of f-strings."""
    for path in needed(name):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_it_is_short():
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 220


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_code_that_it_runs(name):
    deps = [dep for dep in STAGES[name]["deps"] if dep.startswith("stages/")]
    undeclared = [path for path in needed(name) if not any(covers(dep, path) for dep in deps)]
    assert undeclared == []
    unused = [dep for dep in deps if not any(covers(dep, path) for path in needed(name))]
    assert unused == []
    assert all((ROOT / dep).exists() for dep in deps)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_data_and_settings_that_it_reads(name):
    """Paths are constants in the code, or the start of an f-string."""
    mentioned = [text for text in texts(name) if re.match(r"(data|metrics|plots|studies)/", text)]
    deps = [dep for dep in STAGES[name]["deps"] if not dep.startswith("stages/")]

    def is_read(path: str) -> bool:
        prefix = f"{Path(path).parent}/"  # as in f"data/models/{name}.keras"
        return any(covers(path, text) or text == prefix for text in mentioned)

    assert [dep for dep in deps if not is_read(dep)] == []
    folders = {Path(path).parent for path in outputs(name)}  # written by this stage, too
    others = [path for other in STAGES for path in outputs(other)]
    others = [path for path in others if Path(path).parent not in folders]
    others += [text for text in mentioned if text.startswith("studies/")]
    read = [path for path in others if is_read(path) and path not in outputs(name)]
    assert [path for path in read if not any(covers(dep, path) for dep in deps)] == []


@pytest.mark.parametrize("name", STAGES)
def test_data_come_from_other_stages_or_the_user(name):
    made = [path for other in STAGES if other != name for path in outputs(other)]
    for dep in STAGES[name]["deps"]:
        if not dep.startswith(("stages/", "studies/")) and dep != "data/raw":
            assert any(covers(path, dep) or covers(dep, path) for path in made), dep


# --- parameters ---------------------------------------------------------------------------


def parameters_read(path: str) -> set[str]:
    """Return the dotted keys that a file reads from its variable `params`.

    `params.models[…]` is "*": the stage's own model. If all of `params` is passed to a function of
    another module, that module is searched, too. Any other use of all of `params` reads all keys.
    """
    keys, seen = set(), set()
    modules = {
        alias.name: f"{node.module.replace('.', '/')}.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("stages.")
        for alias in node.names
    }
    for node in ast.walk(tree(path)):  # outer nodes come before the nodes inside them
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "params.models":
            keys.add("*")
            seen |= {id(inner) for inner in ast.walk(node.value)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in modules:
            passed = [a for a in node.args if getattr(a, "id", "") == "params"]
            seen |= {id(argument) for argument in passed}
            keys |= parameters_read(modules[node.func.id]) if passed else set()
        elif isinstance(node, ast.Attribute | ast.Name) and id(node) not in seen:
            first, *rest = ast.unparse(node).removesuffix(".model_dump").split(".")
            if first == "params" and isinstance(node.ctx, ast.Load):
                seen |= {id(inner) for inner in ast.walk(node)}
                keys.add(".".join(rest))
    keys.discard("models")  # the names only
    return keys


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_exactly_the_parameters_that_it_reads(name):
    declared, model = STAGES[name]["params"], name.removeprefix("train_")
    read = {model if key == "*" else key for key in parameters_read(script(name))}
    if "" in read:  # all
        document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        read = {*document}
    below = [key for key in read if not any(f"{key}.".startswith(f"{d}.") for d in declared)]
    assert below == [], "not declared"
    unused = [d for d in declared if not any(f"{key}.".startswith(f"{d}.") for key in read)]
    assert unused == [], "never read"


def test_only_the_loader_names_the_parameter_file():
    files = set().union(*(needed(name) for name in STAGES))
    pattern = re.compile(r"[\"']params\.yaml[\"']")
    found = [path for path in files if pattern.search((ROOT / path).read_text(encoding="utf-8"))]
    assert found == ["stages/common/params.py"]


# --- models and plots ---------------------------------------------------------------------


def test_every_model_has_its_stage_and_is_everywhere():
    assert sorted(MODELS) == model_names()
    for model in MODELS:
        assert STAGES[f"train_{model}"]["cmd"] == f"python -m stages.train {model}"
        assert outputs(f"train_{model}") == [
            f"data/models/{model}.keras", f"data/timing/{model}.json",
            f"metrics/{model}.json", f"plots/history/{model}.csv",
        ]  # fmt: skip
        assert f"data/models/{model}.keras" in STAGES["evaluate"]["deps"]
        assert model in STAGES["report"]["params"]
        assert PIPELINE["artifacts"][model]["path"] == f"data/models/{model}.keras"


def test_the_learning_curves_come_first_and_show_every_model():
    drawn = [next(iter(figure.values())) for figure in PIPELINE["plots"]]
    for figure, column in zip(drawn, ("accuracy", "val_accuracy", "loss", "val_loss"), strict=True):
        assert figure["y"] == {f"plots/history/{model}.csv": column for model in MODELS}


def test_small_results_stay_in_git_and_the_run_cache_works():
    for stage in STAGES.values():
        for entry in stage.get("metrics", []) + stage.get("plots", []):
            assert next(iter(entry.values()))["cache"] is False
        assert "always_changed" not in stage
    # An uncached output takes a stage out of the run cache. Only `report` may have one: it takes
    # seconds, and as a plot its table would be one more chart.
    uncached = [
        (name, out)
        for name, stage in STAGES.items()
        for out in stage["outs"]
        if not isinstance(out, str)
    ]
    assert uncached == [("report", {"metrics/results.csv": {"cache": False}})]


def columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def test_every_plotted_column_exists(pipeline):
    checked = 0
    for figure in PIPELINE["plots"] + [p for s in STAGES.values() for p in s.get("plots", [])]:
        name, options = next(iter(figure.items()))
        y = options["y"] if isinstance(options["y"], dict) else {name: options["y"]}
        for path, column in y.items():
            assert {options["x"], column} <= set(columns(pipeline.folder / path)), f"{name}: {path}"
            checked += 1
    assert checked == 5 * len(MODELS) + 5


# --- what a change makes stale ------------------------------------------------------------


def test_a_change_of_one_model_makes_only_that_model_stale(clone):
    """`dvc status` also names `report`, if the parameters of a model changed: it shows them."""
    source = clone.path("stages/models/lstm.py")
    source.write_text(source.read_text(encoding="utf-8") + "# other layers\n", encoding="utf-8")
    assert set(json.loads(clone.dvc("status", "--json"))) == {"train_lstm"}
    clone.set({"cnn.dense": 9})
    assert set(json.loads(clone.dvc("status", "--json"))) == {"train_lstm", "train_cnn", "report"}
