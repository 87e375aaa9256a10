"""Fixtures for branches of the pipeline's repository. No test runs the whole pipeline again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import Project, set_keys


@pytest.fixture
def branch(pipeline: Project, tmp_path: Path) -> Project:
    """A fresh clone without data, on the branch `change`: what CI has."""
    made = pipeline.at(tmp_path / "branch")
    pipeline.run("git", "clone", "--quiet", str(pipeline.folder), str(made.folder))
    made.run("git", "checkout", "--quiet", "-b", "change")
    return made


@pytest.fixture
def work(clone: Project) -> Project:
    """A copy with data and cache, on the branch `change`: what the author has."""
    clone.run("git", "checkout", "--quiet", "-b", "change")
    return clone


def edit(project: Project, name: str, changes: dict) -> None:
    """Change keys of a JSON or YAML file."""
    document = set_keys(yaml.safe_load(project.read(name)), changes)
    dump = json.dumps if name.endswith(".json") else yaml.safe_dump
    project.path(name).write_text(dump(document) + "\n", encoding="utf-8")
