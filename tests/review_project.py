"""The recorded pipeline as a repository that people branch off, for tests of what they share.

No test runs the pipeline a second time: `recorded` takes over what the fixture `pipeline` made, and
all that a branch runs is answered, where it can be, from one cache.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Project


@pytest.fixture(scope="session")
def recorded(pipeline: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All that git keeps, with a run on digits recorded on the main branch; do not change it."""
    made = pipeline.at(tmp_path_factory.mktemp("recorded") / "project")
    shutil.copytree(pipeline.folder, made.folder, symlinks=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    results = ("dvc.lock", "metrics/", "plots/")
    for name in listed:
        target = made.path(name)
        if (ROOT / name).is_file() and not target.exists() and not name.startswith(results):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    made.commit("the rest of the repository")
    return made


@pytest.fixture
def branch(recorded: Project, tmp_path: Path) -> Project:
    """A fresh clone, without data, on a branch of its own: what CI has."""
    made = recorded.at(tmp_path / "branch")
    recorded.run("git", "clone", "--quiet", str(recorded.folder), str(made.folder))
    made.run("git", "checkout", "--quiet", "-b", "change")
    return made


@pytest.fixture
def work(branch: Project, recorded: Project) -> Project:
    """The same with the data at hand: what the branch's author has."""
    share_cache(branch, recorded)
    branch.dvc("checkout")
    return branch


def share_cache(project: Project, other: Project) -> None:
    project.dvc("cache", "dir", "--local", str(other.path(".dvc/cache")))
