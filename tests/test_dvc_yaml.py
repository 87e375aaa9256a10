"""`dvc.yaml` against the code: what a stage imports, reads and plots is what it declares."""

from __future__ import annotations

import ast
import csv
import functools
import json
import re
from pathlib import Path, PurePosixPath

import pytest
import yaml
from conftest import ROOT

from stages.params import MODELS, Params

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]


def paths(entries: list) -> list[str]:
    """Return the paths of a stage's `deps`, `outs`, `metrics` or `plots`, options left out."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def outputs(stage: dict) -> list[str]:
    return [path for kind in ("outs", "metrics", "plots") for path in paths(stage.get(kind, []))]


def module_of(stage: dict) -> str:
    return re.fullmatch(r"python -m stages\.(\w+)( \w+)?", stage["cmd"])[1]


@functools.cache
def imported(path: str) -> frozenset[str]:
    """Return the files of `stages/` that a module imports anywhere, lazily included."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if (ROOT / node.module.replace(".", "/")).is_dir()
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.replace(".", "/") + ".py" for name in modules if name.startswith("stages.")}
    return frozenset(found)


@functools.cache
def named(path: str, folder: str) -> frozenset[str]:
    """Return the files of a folder, other than modules, that a module or a template names."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return frozenset(
        str(file.relative_to(ROOT))
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix not in (".py", ".pyc")
        and any(f'{before}{file.name}"' in text for before in '"/')
    )


def files_of(path: str) -> set[str]:
    """Return `path` and all else in git that it needs: modules, templates, settings."""
    needed, waiting = set(), {path}
    while waiting:
        needed |= waiting
        found: set[str] = set()
        for name in waiting:
            found |= imported(name) if name.endswith(".py") else set()
            found |= named(name, "stages") | named(name, "studies")
        waiting = found - needed
    return needed


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_just_the_files_that_it_imports_and_names(name):
    listed = {dep for dep in paths(STAGES[name]["deps"]) if dep.startswith(("stages/", "studies/"))}
    assert listed == files_of(f"stages/{module_of(STAGES[name])}.py")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_files_and_on_what_other_stages_make(name):
    made = [path for other, stage in STAGES.items() if other != name for path in outputs(stage)]
    for dep in paths(STAGES[name]["deps"]):
        assert dep.rstrip("/") != "stages", "the whole folder would rerun every stage"
        if dep.startswith(("stages/", "studies/")):
            assert (ROOT / dep).is_file()
        else:
            assert any(Path(path).is_relative_to(dep) or Path(dep).is_relative_to(path)
                       for path in made), dep  # fmt: skip


# --- parameters ---------------------------------------------------------------------------


def chain(node: ast.AST) -> list[str] | None:
    """Return `["params", "train", "threads"]` for the expression `params.train.threads`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else None


def parameters_read(path: str) -> set[str]:
    """Return the dotted keys that a stage's module reads from its variable `params`.

    A section, or all of `params`, that is handed on counts as read as a whole; `getattr(params,
    name)` counts as `*`, the section of the model that the stage is for.
    """
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    keys = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("getattr(params, "):
            inner.add(id(node.args[0]))
            keys.add("*")
        if id(node) in inner or not isinstance(node, ast.Attribute | ast.Name):
            continue
        found = chain(node)
        if found and found[0] == "params" and isinstance(node.ctx, ast.Load):
            keys |= everything() if found[1:] in ([], ["model_dump"]) else {".".join(found[1:])}
    return keys


def everything() -> set[str]:
    return set(Params.model_fields)


def covers(declared: str, key: str) -> bool:
    return key == declared or key.startswith(f"{declared}.")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_just_the_parameters_that_it_reads(name):
    model = name.removeprefix("train_")
    read = {
        model if key == "*" else key
        for key in parameters_read(f"stages/{module_of(STAGES[name])}.py")
    }
    declared = STAGES[name]["params"]
    assert [k for k in read if not any(covers(d, k) for d in declared)] == [], "not declared"
    assert [d for d in declared if not any(covers(d, k) for k in read)] == [], "never read"


def test_the_stages_read_the_parameters_through_the_loader_alone():
    used = set().union(*(files_of(f"stages/{module_of(stage)}.py") for stage in STAGES.values()))
    readers = [
        path
        for path in sorted(used)
        if re.search(r"[\"']params\.yaml[\"']", (ROOT / path).read_text("utf-8"))
    ]
    assert readers == ["stages/params.py"]


# --- models, plots ------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_stage_and_its_plots(model):
    stage = STAGES[f"train_{model}"]
    assert stage["cmd"] == f"python -m stages.train {model}"
    assert outputs(stage) == [
        f"data/models/{model}.keras",
        f"metrics/train/{model}.json",
        f"metrics/timing/{model}.json",
        f"plots/history/{model}.csv",
    ]
    figures = [next(iter(figure.items())) for figure in PIPELINE["plots"]]
    curves = [f for _, f in figures if f"plots/history/{model}.csv" in str(f.get("y"))]
    assert {f["y"][f"plots/history/{model}.csv"] for f in curves} == {
        "accuracy", "val_accuracy", "loss", "val_loss",
    }  # fmt: skip
    assert f"plots/confusion/{model}.csv" in dict(figures)


def test_there_is_no_training_stage_without_a_model():
    assert [s.removeprefix("train_") for s in STAGES if s.startswith("train_")] == list(MODELS)


def test_metrics_and_plots_are_kept_in_git_and_nothing_switches_the_run_cache_off():
    for stage in STAGES.values():
        for entry in stage.get("metrics", []) + stage.get("plots", []):
            assert isinstance(entry, dict)
            assert next(iter(entry.values()))["cache"] is False
        assert all(isinstance(out, str) for out in stage.get("outs", []))
        assert "always_changed" not in stage


def test_every_stage_says_what_it_does():
    assert all(len(stage["desc"]) > 20 for stage in STAGES.values())


def test_timings_reach_the_report_and_nothing_else():
    for name, stage in STAGES.items():
        reads = [dep for dep in paths(stage["deps"]) if "timing" in dep or dep == "metrics"]
        assert not reads or name == "report"


def test_what_dvc_draws_of_a_stages_own_plots_is_declared():
    """DVC draws each of these files, by default its last column against the row's number."""
    for stage in STAGES.values():
        for path, settings in (next(iter(entry.items())) for entry in stage.get("plots", [])):
            assert path == "plots/readme" or {"x", "y"} <= set(settings)


def header(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def test_every_plotted_column_is_in_its_file(pipeline):
    checked = 0
    drawn = [entry for stage in STAGES.values() for entry in stage.get("plots", [])]
    for figure in PIPELINE["plots"] + drawn:
        name, settings = next(iter(figure.items()))
        if pipeline.path(name).is_dir():
            for path in sorted(pipeline.path(name).glob("*.csv")):
                assert {settings["x"], settings["y"]} <= set(header(path))
            continue
        y = settings["y"] if isinstance(settings["y"], dict) else {name: settings["y"]}
        x = settings["x"] if isinstance(settings["x"], dict) else dict.fromkeys(y, settings["x"])
        for column_of in (x, y):
            for path, columns in column_of.items():
                for column in [columns] if isinstance(columns, str) else columns:
                    assert column in header(pipeline.path(path)), f"{name}: {column} in {path}"
                    checked += 1
    assert checked >= 2 * 4 * len(MODELS)


# --- DVC's extension for VS Code ----------------------------------------------------------


def test_the_extension_that_vs_code_recommends_finds_what_it_expects(pipeline):
    """It reads the repository's own `dvc.yaml`, relative paths, and CSVs by their headers."""
    recommended = json.loads((ROOT / ".vscode/extensions.json").read_text(encoding="utf-8"))
    assert recommended == {"recommendations": ["iterative.dvc"]}
    tracked = pipeline.run("git", "ls-files").stdout.splitlines()
    assert {"dvc.yaml", "dvc.lock", "params.yaml", ".dvc/config"} <= set(tracked)
    for stage in STAGES.values():
        for path in [*paths(stage["deps"]), *outputs(stage)]:
            assert not PurePosixPath(path).is_absolute()
            assert ".." not in PurePosixPath(path).parts
            assert "\\" not in path
        for path in [p for kind in ("metrics", "plots") for p in paths(stage.get(kind, []))]:
            assert any(name == path or name.startswith(f"{path}/") for name in tracked), path
    tables = [name for name in tracked if name.endswith(".csv")]
    assert len(tables) >= 4 * len(MODELS)
    for name in tables:
        named = header(pipeline.path(name))
        assert all(re.fullmatch(r"[a-z]\w*", column) for column in named), f"{name}: {named}"
