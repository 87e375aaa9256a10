"""The layout of the repository: thin stages, clear names, one direction of imports, small files."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

STAGE_SCRIPTS = ("prepare", "train", "evaluate", "report")
TOP = ("stages", "tools", "studies", "benchmarks")
CODE = (*TOP, ".ci", ".github")
MOST_BYTES = 1_000_000
# Entry points that are named after the package behind them.
PAIRS = {
    ("bench", "benchmarks"), ("evaluate", "evaluation"), ("report", "reporting"),
    ("train", "training"),
}  # fmt: skip
# Each layer may import itself and the layers after it.
LAYERS = {
    "benchmarks": ("benchmarks", "stage scripts", "packages", "common"),
    "tools": ("tools", "stage scripts", "packages", "common"),
    "studies": ("studies", "stage scripts", "packages", "common"),
    "stage scripts": ("packages", "common"),
    "packages": ("packages", "common"),
    "common": ("common",),  # params.py also finds the model files, by name and not by an import
}

# Commands that use another command's code, which no stage needs:
BETWEEN_COMMANDS = {
    ("tools/docs.py", "studies/engine/summary.py"),  # quotes the comparisons of studies
    ("benchmarks/pipeline.py", "tools/verify.py"),  # times the pipeline in the same fresh clones
}


def sources(*folders: str) -> Iterator[str]:
    """Yield the Python files in these folders of the repository, as relative paths."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT))


@functools.cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@functools.cache
def imported(path: str) -> frozenset[str]:
    """Return the project's files that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(file for name in names for file in files_of(name))


def files_of(module: str) -> list[str]:
    """Return the file of a module of the project, and those of the packages that hold it."""
    path = Path(*module.split("."))
    if path.parts[0] not in TOP:
        return []
    own = [f"{path}.py"] if (ROOT / f"{path}.py").exists() else []
    packages = [*reversed(path.parents), path]
    inits = [str(package / "__init__.py") for package in packages]
    return own + [init for init in inits if (ROOT / init).exists()]


def layer(path: str) -> str:
    top, *rest = Path(path).parts
    if top != "stages":
        return top
    if len(rest) == 1 and rest != ["__init__.py"]:
        return "stage scripts"
    return "common" if rest[0] in ("common", "__init__.py") else "packages"


def lines(paths: Iterator[str]) -> int:
    return sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths)


def test_the_four_stages_are_alone_at_the_top_and_thin():
    found = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert found == set(STAGE_SCRIPTS)
    for name in STAGE_SCRIPTS:
        assert lines(iter([f"stages/{name}.py"])) <= 130, name


def test_imports_point_one_way():
    found = {
        (path, target)
        for path in sources(*TOP)
        for target in imported(path)
        if layer(target) not in LAYERS[layer(path)] and not target.endswith("__init__.py")
    }
    assert found == BETWEEN_COMMANDS


def test_the_layers_are_told_apart():
    files = ("stages/train.py", "stages/training/loop.py", "stages/common/cli.py",
             "stages/__init__.py", "tools/review.py", "studies/engine/grid.py")  # fmt: skip
    assert [layer(path) for path in files] == [
        "stage scripts", "packages", "common", "common", "tools", "studies",
    ]  # fmt: skip
    assert "stages/training/loop.py" in imported("stages/training/session.py")
    assert "stages/models/__init__.py" in imported("stages/training/session.py")


def test_names_do_not_differ_by_a_suffix_only_and_shadow_nothing():
    names = {Path(path).stem for path in sources(*TOP)} - {"__init__", "__main__"}
    names |= {Path(path).parent.name for path in sources(*TOP)}
    assert names & set(sys.stdlib_module_names) == set()
    alike = {(a, b) for a in names for b in names - {a} if b.startswith(a.rstrip("e"))}
    assert alike <= PAIRS


def test_the_training_call_exists_once():
    """The loop calls Keras's `fit`; one other place calls the loop. Peers of the benchmark do not
    use our loop.
    """
    calls = [
        path
        for path in sources(*TOP)
        if path != "stages/training/loop.py" and not path.startswith("benchmarks/peers/")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", "") == "fit" or getattr(node.func, "id", "") == "fit")
    ]
    assert calls == ["stages/training/session.py"]


def test_no_file_in_git_is_large():
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git repository")
    sizes = {name: (ROOT / name).stat().st_size for name in done.stdout.split("\0")
             if (ROOT / name).is_file()}  # fmt: skip
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
