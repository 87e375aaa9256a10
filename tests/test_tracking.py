"""A user's data in `data/raw/`, tracked by DVC: experiments, changes and teammates find them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import IDENTITY, ROOT, tiny_arrays

pytestmark = pytest.mark.extra
DATA = "data/raw/my.npz"
EXPERIMENT = ("dvc", "exp", "run", "-S", f"dataset={DATA}")


def test_git_ignores_data_but_not_their_dvc_files(project):
    project.commit("start")
    for name in ("my.npz", "my.npz.dvc", "pictures/a/1.png", "pictures.dvc", "sub/x.csv.dvc"):
        path = project.path(f"data/raw/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shown = project.run("git", "status", "--porcelain", "-uall").stdout.split()
    tracked = ("my.npz.dvc", "pictures.dvc", "sub/x.csv.dvc")
    assert shown == [word for name in tracked for word in ("??", f"data/raw/{name}")]


@pytest.mark.parametrize("name", ["sub/x.npz", "pictures"])
def test_dvc_adds_files_in_subfolders_and_folders(clone, name):
    path = clone.path(f"data/raw/{name}")
    if path.suffix:
        path.parent.mkdir()
        path.write_bytes(b"data")
    else:
        (path / "a").mkdir(parents=True)
        (path / "a/1.png").write_bytes(b"data")
    clone.dvc("add", f"data/raw/{name}")
    shown = set(clone.run("git", "status", "--porcelain", "-uall").stdout.splitlines())
    # For a folder, DVC adds a line to the .gitignore, and says so.
    assert shown - {" M data/raw/.gitignore"} == {f"?? data/raw/{name}.dvc"}


@pytest.mark.slow
def test_own_data_are_tracked_from_the_first_run_to_a_teammate(clone, tmp_path):
    arrays = {"x": tiny_arrays()["x_train"], "y": tiny_arrays()["y_train"]}
    np.savez(clone.path(DATA), **arrays)
    clone.dvc("add", DATA)
    assert f"{DATA}.dvc" in clone.run("git", "status", "--porcelain").stdout
    assert " M data/raw/.gitignore" not in clone.run("git", "status", "--porcelain").stdout
    clone.run("git", "add", f"{DATA}.dvc")

    # in copies of the tree
    clone.run(*EXPERIMENT, "--temp", "prepare", **IDENTITY)
    clone.run(*EXPERIMENT, "--queue", "-S", "prepare.val_fraction=0.2", "prepare", **IDENTITY)
    clone.run("dvc", "exp", "run", "--run-all", **IDENTITY)
    names = [e["name"] for e in shown_experiments(clone)]
    assert len(names) == 2

    # in the workspace
    clone.set({"dataset": DATA})
    assert "Running stage 'report'" in clone.dvc("repro")
    clone.commit("own data")

    # a teammate
    server = tmp_path / "server.git"
    clone.dvc("remote", "add", "--default", "storage", str(tmp_path / "storage"))
    clone.commit("remote")
    clone.dvc("push")
    clone.run("git", "clone", "--quiet", "--bare", str(clone.folder), str(server))
    mate = clone.at(tmp_path / "mate")
    clone.run("git", "clone", "--quiet", str(server), str(mate.folder))
    missing = mate.stage("prepare", status=1)
    assert missing.stderr.startswith(f"error: {DATA} does not exist")
    assert f"`dvc pull {DATA}`" in missing.stderr
    mate.dvc("pull")
    assert "Running stage" not in mate.dvc("repro")
    assert mate.path(DATA).read_bytes() == clone.path(DATA).read_bytes()

    # other bytes with the same arrays, then other arrays
    np.savez_compressed(mate.path(DATA), **arrays)
    assert re.findall(r"Running stage '(\w+)'", mate.dvc("repro")) == ["prepare"]
    np.savez(mate.path(DATA), x=255 - arrays["x"], y=arrays["y"])
    assert "Running stage 'train_cnn'" in mate.dvc("repro")


def shown_experiments(project) -> list[dict]:
    shown = json.loads(project.dvc("exp", "show", "--json"))
    return [each for revision in shown for each in revision["experiments"] or ()]


def test_the_folder_is_in_a_fresh_clone():
    kept = (ROOT / "data/raw/.gitignore").read_text(encoding="utf-8").splitlines()
    assert kept[1:] == ["*", "!*/", "!.gitignore", "!*.dvc"]
