"""A small project on digits with a recorded run on its main branch, for tests of the review.

Training is quick because the models are tiny; `dvc` and `git` are the real ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "cnn": {"filters": [4], "dense": 8},
    "lstm": {"units": [8], "dense": 8},
    "hybrid": {"filters": [4], "units": [8], "dense": 8},
}
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}


def call(folder: Path, *command: str, **environment: str) -> str:
    """Run a command in `folder` and return what it printed; fail the test where it fails."""
    if command[0] in ("python", "dvc"):
        module = ["-m", "dvc"] if command[0] == "dvc" else []
        command = (sys.executable, *module, *command[1:])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | IDENTITY | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def set_params(folder: Path, **changes: object) -> None:
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if isinstance(value, dict):
            document[key] |= value
        else:
            document[key] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def commit(folder: Path, message: str) -> None:
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-q", "-m", message)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose main branch records a run on digits; do not change it."""
    folder = tmp_path_factory.mktemp("review") / "project"
    listed = call(ROOT, "git", "ls-files", "-co", "--exclude-standard")
    for name in listed.splitlines():
        source = ROOT / name
        if source.is_file() and not name.startswith(("metrics/", "plots/", "dvc.lock", "review/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    set_params(folder, dataset="digits", epochs=1, **TINY)
    set_params(folder, train={"batch_size": 64})
    call(folder, "git", "init", "-q", "-b", "main")
    call(folder, "dvc", "repro")
    commit(folder, "main")
    return folder


@pytest.fixture
def clone(recorded: Path, tmp_path: Path) -> Path:
    """Return a fresh clone, without data, on a branch of its own: what CI has."""
    folder = tmp_path / "clone"
    call(tmp_path, "git", "clone", "-q", str(recorded), str(folder))
    call(folder, "git", "checkout", "-q", "-b", "change")
    return folder
