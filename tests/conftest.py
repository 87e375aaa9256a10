"""What the tests share: small data, parameters, and copies of the project to run commands in.

Tests write only below `tmp_path`. Commands run in copies of the project, with their own home
folder, DVC site folder and git configuration.
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
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
PROJECT_FILES = (
    ".dvc/.gitignore", ".dvc/config", ".dvc/plots", ".dvcignore", ".gitignore", "Makefile",
    "data/raw/.gitignore", "dvc.yaml", "params.yaml", "recipes", "stages", "studies", "tools",
)  # fmt: skip
IDENTITY = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
# Prefixes of environment variables that commands in the copies must not see.
FOREIGN = ("GIT_", "DVC_", "XDG_", "KERAS_", "PYTEST_", "RAY_", "MAKE", "MFLAGS")
LEFT_OUT = ("__pycache__", "*.pyc", "trials")  # not copied
# Background jobs of a shell inherit an ignored SIGINT. Restore it: tests send it to children.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray's workers run with a low priority, and would wait for the other tests.
os.environ |= {"RAY_worker_niceness": "0"}

CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens here, as on a machine without a network

# The smallest run that uses every part of the pipeline. It sets every key that a test relies on,
# because an experiment may have changed params.yaml.
TINY = {
    "dataset": "digits",
    "epochs": 4,
    "seed": 1,
    "prepare.val_fraction": 0.1,
    "prepare.split_seed": 1,
    "prepare.train_images": 0,
    "train.batch_size": 128,
    "train.schedule": "one_cycle",
    "train.optimizer": "adam",
    "train.precision": "float32",
    "train.early_stopping": 0,
    "train.class_weight": "none",
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
    """Return a copy of a nested mapping with dotted keys set. Unlike `-S`, it adds unknown keys."""
    changed = copy.deepcopy(document)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        target = changed
        for section in sections:
            target = target[section]
        target[key] = value
    return changed


def names(folder: Path) -> list[str]:
    """Return the sorted names of all files and folders in `folder`, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this test run see."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="module")
def ray_turn() -> None:
    """Mark a test that runs Ray. One worker runs all of them: two would fight for two cores."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker run the tests of a file. Start long files first, so that no worker idles."""
    long = {item.path for item in items if item.get_closest_marker("extra")}
    items.sort(key=lambda item: ("ray_turn" not in item.fixturenames, item.path not in long))
    for item in items:
        group = "ray" if "ray_turn" in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def backend() -> Iterator[ModuleType]:
    """Keras with TensorFlow, set up once per worker: one thread, deterministic operations.

    Stages called in this process find TensorFlow's threads fixed. Their own calls of `configure`
    set the seed and the precision only.
    """
    from stages.training.runtime import Threads, configure

    configure(Threads(1, 1, 1), seed=1)
    import keras
    import tensorflow as tf

    with pytest.MonkeyPatch.context() as patch:
        for threads in ("intra_op", "inter_op"):
            patch.setattr(tf.config.threading, f"set_{threads}_parallelism_threads", lambda _: None)
        yield keras


@pytest.fixture(scope="session")
def tiny_document() -> dict[str, Any]:
    """`params.yaml` as parsed YAML, with the values of `TINY`."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return set_keys(document, TINY)


@pytest.fixture
def make_params(tiny_document: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that gives typed parameters: `make_params({"lstm.units": [16]})`."""
    from stages.common.params import parse_params

    return lambda changes=None: parse_params(set_keys(tiny_document, changes or {}))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a machine with our programs, but no user, network or cache."""
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
        "RAY_worker_niceness": "0",
    }
    # Matplotlib lists the fonts once per user, and prints a line if that takes long.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], env=made, check=True)
    return made


class Project:
    """A copy of the project, with its current code, in its own folder."""

    def __init__(self, folder: Path, document: dict[str, Any], environment: dict[str, str]):
        """Copy the project to `folder`, unless that exists: then it is used as it is."""
        self.folder, self.document, self.environment = folder, document, environment
        if folder.exists():
            return
        for name in PROJECT_FILES:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            else:
                shutil.copy(ROOT / name, target)
        self.set({})

    def set(self, changes: dict[str, Any]) -> None:
        """Write `params.yaml`: the tiny parameters with `changes`."""
        text = yaml.safe_dump(set_keys(self.document, changes), sort_keys=False)
        self.path("params.yaml").write_text(text, encoding="utf-8")

    def at(self, folder: Path) -> Project:
        """Return the same project in another folder, which need not exist yet."""
        twin = copy.copy(self)
        twin.folder = folder
        return twin

    def copy_to(self, folder: Path) -> Project:
        """Copy all files to another folder and return the project there."""
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        return self.at(folder)

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> str:
        return self.path(name).read_text(encoding="utf-8")

    def run(
        self, *command: str, status: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the project. Fail unless its exit status is `status` (None: any)."""
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

    def module(self, name: str, *arguments: str, status: int | None = 0, **variables: str):
        """Run `python -m NAME`, for example `module("tools.review", "main")`."""
        return self.run(sys.executable, "-m", name, *arguments, status=status, **variables)

    def stage(self, name: str, *arguments: str, status: int | None = 0, **variables: str):
        """Run `python -m stages.NAME`."""
        return self.module(f"stages.{name}", *arguments, status=status, **variables)

    def dvc(self, *arguments: str, status: int | None = 0, **variables: str) -> str:
        """Run `dvc` and return its output, stdout and stderr."""
        done = self.run("dvc", *arguments, status=status, **variables)
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore, with an identity for this call only."""
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
    shared_folder: Path,
    tiny_document: dict[str, Any],
    environment: dict[str, str],
) -> Project:
    """A repository in which `dvc repro` has run once on digits; its results are committed.

    It runs once per test run. Each worker gets a copy, because two DVC commands at once in one
    repository would wait for its lock. Tests only read it; to change files, use `clone`.
    """
    shared, output = shared_folder / "pipeline", shared_folder / "pipeline.txt"
    with FileLock(f"{shared}.lock"):
        if not output.exists():
            shutil.rmtree(shared, ignore_errors=True)  # from a worker in which it failed
            project = Project(shared, tiny_document, environment)
            project.commit("the project")
            printed = project.dvc("repro")
            project.commit("its results")
            output.write_text(printed, encoding="utf-8")
    made = Project(shared, tiny_document, environment).copy_to(tmp_path_factory.mktemp("pipeline"))
    made.first_output = output.read_text(encoding="utf-8")
    return made


@pytest.fixture
def clone(pipeline: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of `pipeline`, run cache and results included, that a test may change."""
    copied = pipeline.copy_to(tmp_path / "clone")
    yield copied
    shutil.rmtree(copied.folder)


def tiny_arrays(
    side: tuple[int, ...] = (12, 12), classes: int = 3, per_class: int = 20, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return images whose class is the band of rows that is bright."""
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
    """Return a function that writes `tiny_arrays` as `.npz`. Arrays set to None are left out."""

    def make(changes: dict[str, Any] | None = None, name: str = "own.npz", **shape: Any) -> Path:
        arrays = tiny_arrays(**shape) | (changes or {})
        path = tmp_path / name
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return path

    return make
