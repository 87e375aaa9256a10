"""The README's commands in places that are hard for software: they succeed, or say why in one line.

The nightly workflow runs these tests on each supported Python.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import IDENTITY, Project

pytestmark = pytest.mark.slow
GIBI = 2**30
STRANGER = 12345  # a user ID that nobody here has
COMMANDS = {
    "make run": [sys.executable, "-m", "tools.run_dataset", "digits", "-S", "epochs=2"],
    "dvc exp run": ["dvc", "exp", "run", "-S", "epochs=2"],
}


@pytest.fixture(params=COMMANDS)
def command(request) -> list[str]:
    return COMMANDS[request.param]


@pytest.fixture
def repository(tmp_path, tiny_document, environment) -> Project:
    """A repository without results."""
    made = Project(tmp_path / "project", tiny_document, environment)
    made.commit("the project")
    return made


def attempt(
    project: Project, command: list[str], preparation: Callable | None = None,
    **variables: str | None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command. A variable that is None is not set."""
    changed = project.environment | IDENTITY | variables
    return subprocess.run(
        command, cwd=project.folder, env={k: v for k, v in changed.items() if v is not None},
        preexec_fn=preparation, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=600, check=False,
    )  # fmt: skip


def assert_trained(project: Project, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    folder = project.path("runs/digits") if "digits" in done.args else project.folder
    assert (folder / "plots/report.html").exists()
    assert "Traceback" not in done.stderr


def assert_one_line(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.lower().startswith("error")]
    assert len(said) == 1, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_with_a_space_an_accent_and_a_quote(repository, command, tmp_path):
    moved = repository.at(tmp_path / "où est l'été ?")
    repository.folder.rename(moved.folder)
    assert_trained(moved, attempt(moved, command))


def test_a_terminal_that_knows_ascii_only(repository, command):
    assert_trained(repository, attempt(repository, command, LC_ALL="C", PYTHONUTF8="0"))


def test_a_home_in_which_nobody_can_write(repository, command):
    """`/proc` takes no files, not even from root."""
    assert_trained(repository, attempt(repository, command, HOME="/proc", KERAS_HOME=None))


def test_no_network_and_no_cached_data(repository, command):
    """Digits need no network. MNIST does, and says what to do."""
    mnist = [word.replace("digits", "mnist") for word in command]
    mnist += [] if "mnist" in mnist else ["-S", "dataset=mnist"]
    done = attempt(repository, mnist)
    assert done.returncode != 0
    told = [line for line in (done.stdout + done.stderr).splitlines() if "cannot download" in line]
    assert len(told) == 1
    assert "dataset=digits" in told[0]
    assert_trained(repository, attempt(repository, COMMANDS["make run"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_files_of_another_user(repository, command):
    for path in [repository.folder, *repository.folder.rglob("*")]:
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    done = attempt(repository, command)
    if command is COMMANDS["make run"]:  # needs no git
        assert_trained(repository, done)
    else:
        assert_one_line(done, "git")


def test_one_core(repository, command):
    core = min(os.sched_getaffinity(0))
    assert_trained(
        repository, attempt(repository, command, lambda: os.sched_setaffinity(0, {core}))
    )


def test_two_gigabytes_of_memory(repository, command):
    limit = 2 * GIBI
    assert_trained(
        repository,
        attempt(
            repository, command, lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit,) * 2)
        ),
    )


def test_a_clock_that_was_set_back(repository, command):
    """All files are from tomorrow."""
    tomorrow = time.time() + 86_400
    assert_trained(repository, attempt(repository, command))
    for path in repository.folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (tomorrow, tomorrow))
    assert_trained(repository, attempt(repository, command))


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_a_clock_in_the_past(repository, command):
    assert_trained(repository, attempt(repository, ["faketime", "2001-01-01", *command]))


def test_the_commands_are_those_of_the_readme():
    text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    assert all(name in text for name in COMMANDS)
