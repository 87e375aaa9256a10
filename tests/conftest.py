"""What the tests share: small data, parameters, and copies of the project to run things in.

Nothing here writes into the repository: stages run in copies below `tmp_path`, with a home, a
DVC site folder and a git configuration of their own.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT_FILES = (
    ".dvc/.gitignore", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", "Makefile",
    "dvc.yaml", "params.yaml", "stages", "studies",
)  # fmt: skip
IDENTITY = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
FOREIGN = ("GIT_", "DVC_", "XDG_", "KERAS_", "PYTEST_", "RAY_", "MAKE", "MFLAGS")  # variables
WITH_RAY = ("test_cluster", "test_study", "test_two_nodes")
LEFT_OUT = ("__pycache__", "*.pyc", "trials")  # of the folders copied
# A shell starts what it runs in the background with Ctrl-C ignored, which programs hand on to
# those that they start; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens on "discard": a network that is not there

# The smallest run that still does all that a real one does. Every key that a test relies on is
# set here, whatever the last experiment left in params.yaml.
TINY = {
    "dataset": "digits",
    "epochs": 4,
    "seed": 1,
    "prepare.val_fraction": 0.1,
    "prepare.split_seed": 1,
    "train.batch_size": 128,
    "train.schedule": "one_cycle",
    "train.optimizer": "adam",
    "train.precision": "float32",
    "train.early_stopping": 0,
    "train.clip_norm": 0.0,
    "cnn.filters": [4],
    "cnn.dense": 8,
    "lstm.units": [8],
    "lstm.dense": 8,
    "hybrid.filters": [4],
    "hybrid.units": [8],
    "hybrid.dense": 8,
}


def set_keys(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a nested mapping with dotted keys set, as `dvc exp run -S` would."""
    changed = copy.deepcopy(document)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        target = changed
        for section in sections:
            target = target[section]
        target[key] = value
    return changed


def names(folder: Path) -> list[str]:
    """Return the names of all that a folder holds, hidden and temporary files included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Where several processes work (`-n 2`), give the tests of a file to one.

    They share what takes long to set up. Those that start a Ray work one at a time as well.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.partition("::")[0]).stem
            return "ray" if name in WITH_RAY else name

    return ByFile(config, log)


@pytest.fixture(scope="session")
def tiny_document() -> dict[str, Any]:
    """`params.yaml` as parsed YAML, with the values of `TINY`."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return set_keys(document, TINY)


@pytest.fixture
def make_params(tiny_document: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that gives typed parameters: `make_params({"lstm.units": [16]})`."""
    from stages.params import parse_params

    return lambda changes=None: parse_params(set_keys(tiny_document, changes or {}))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a machine with the project's programs, and no user, network or cache."""
    home = tmp_path_factory.mktemp("home")
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(FOREIGN) and not key.lower().endswith("_proxy")
    }
    made = inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "KERAS_HOME": str(home / "keras"),
        "https_proxy": CLOSED_PORT,
        "http_proxy": CLOSED_PORT,
        "COLUMNS": "200",
    }
    # Matplotlib makes a list of the fonts once a user, and says so where that takes long.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=made, check=True)
    return made


class Project:
    """A copy of the project, with its current code, in a folder of its own."""

    def __init__(self, folder: Path, document: dict[str, Any], environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        for name in PROJECT_FILES:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(ROOT / name, target)
        self.document = document
        self.set({})

    def set(self, changes: dict[str, Any]) -> None:
        """Write `params.yaml`: the tiny parameters with `changes`."""
        text = yaml.safe_dump(set_keys(self.document, changes), sort_keys=False)
        self.path("params.yaml").write_text(text, encoding="utf-8")

    def at(self, folder: Path) -> Project:
        """Return the project that lies, or is about to lie, in another folder."""
        twin = copy.copy(self)
        twin.folder = folder
        return twin

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> str:
        return self.path(name).read_text(encoding="utf-8")

    def run(
        self, *command: str, status: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the project; fail unless it ends with `status` (None: any)."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
        if status is not None and done.returncode != status:
            pytest.fail(
                f"{' '.join(command)} ended with {done.returncode}, not {status}\n"
                f"{done.stdout}\n{done.stderr}"
            )
        return done

    def stage(self, name: str, *arguments: str, status: int | None = 0, **variables: str):
        """Run `python -m stages.NAME`."""
        return self.run(
            sys.executable, "-m", f"stages.{name}", *arguments, status=status, **variables
        )

    def dvc(self, *arguments: str, status: int | None = 0, **variables: str) -> str:
        """Run `dvc` and return all that it printed."""
        done = self.run("dvc", *arguments, status=status, **variables)
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore, under an identity of this call alone."""
        if not self.path(".git").exists():
            self.run("git", "init", "--quiet", "--initial-branch=main")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message, **IDENTITY)


@pytest.fixture
def project(tmp_path: Path, tiny_document: dict[str, Any], environment: dict[str, str]) -> Project:
    """A copy of the project without git: enough for `python -m stages.…`."""
    return Project(tmp_path / "project", tiny_document, environment)


@pytest.fixture(scope="session")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_document: dict[str, Any],
    environment: dict[str, str],
) -> Project:
    """A repository in which `dvc repro` has run once and its results are committed.

    Shared by many tests: they read it, or work in a `clone` of it.
    """
    made = Project(tmp_path_factory.mktemp("pipeline") / "project", tiny_document, environment)
    made.commit("the project")
    made.first_output = made.dvc("repro")
    made.commit("its results")
    return made


@pytest.fixture
def clone(pipeline: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of `pipeline`, run cache and results included, that a test may change."""
    twin = pipeline.at(tmp_path / "clone")
    shutil.copytree(pipeline.folder, twin.folder, symlinks=True)
    yield twin
    shutil.rmtree(twin.folder)


def tiny_arrays(
    side: tuple[int, ...] = (12, 12), classes: int = 3, per_class: int = 20, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return images of `classes` sorts that differ in which band of rows is bright."""
    random = np.random.default_rng(seed)
    arrays = {}
    for part, each in (("train", per_class), ("test", per_class // 2)):
        y = random.permutation(np.repeat(np.arange(classes), each))
        x = random.integers(0, 60, (len(y), *side))
        band = side[0] // classes
        for image, label in zip(x, y, strict=True):
            image[label * band : (label + 1) * band] += 180
        arrays |= {f"x_{part}": x.astype(np.uint8), f"y_{part}": y.astype(np.int64)}
    return arrays


@pytest.fixture
def make_npz(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an `.npz` of `tiny_arrays`, with arrays changed or left out."""

    def make(changes: dict[str, Any] | None = None, name: str = "own.npz", **shape: Any) -> Path:
        arrays = tiny_arrays(**shape) | (changes or {})
        path = tmp_path / name
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return path

    return make
