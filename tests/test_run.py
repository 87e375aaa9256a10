"""`make run`: the whole pipeline in a folder of its own; recipes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import CLOSED_PORT, ROOT, Project, tiny_arrays
from PIL import Image

from stages.common.cli import StageError
from stages.common.params import DATASETS, parse_params, recipe
from tools.run_dataset import copy_project, folder_of, parameters

TINY_RUN = ("-S", "epochs=2", "-S", "train.batch_size=128")


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def ran(pipeline: Project, tmp_path_factory) -> Project:
    """A repository in a folder with a space, in which `make run` has run once."""
    made = pipeline.copy_to(tmp_path_factory.mktemp("a run") / "of mine")
    make = ("make", "-s", "-o", ".venv/installed", "run", "EPOCHS=2")
    made.printed = made.run(*make).stdout
    return made


@pytest.mark.extra
def test_a_run_ends_with_the_answer_and_leaves_the_project_as_it_was(ran):
    assert ran.run("git", "status", "--porcelain").stdout == ""
    end = ran.printed.split("**digits**: ")[1]
    assert re.match(r"The .+ the highest test accuracy, \d+\.\d\d % \(\d+ errors? in 360", end)
    assert re.search(r"^\| lstm +\| .+ \d\d\.\d\d \(\d\d\.\d\d–\d\d\.\d\d\) ", end, re.M)
    page = ran.path("runs/digits/plots/report.html")
    assert page.resolve().as_uri() in end
    assert "dvc exp run -S epochs=30" in end.splitlines()[-1]
    assert json.loads(ran.read("runs/digits/data/timing/cnn.json"))["epochs"] == 2


@pytest.mark.extra
def test_the_next_commands_use_the_committed_settings(ran):
    assert stages_run(ran.dvc("repro", "--dry")) == []
    recorded = ran.read("runs/digits/dvc.lock")
    again = ran.module("tools.run_dataset", "digits", "-S", "epochs=2").stdout
    assert ran.read("runs/digits/dvc.lock") == recorded
    assert stages_run(again) == []  # nothing to do, but the answer is printed again
    assert "**digits**: " in again


@pytest.mark.extra
def test_a_changed_setting_reruns_only_its_stages(ran, tmp_path):
    copied = ran.copy_to(tmp_path / "copy")
    done = copied.module("tools.run_dataset", "digits", "-S", "epochs=2", "-S", "lstm.units=9")
    assert stages_run(done.stdout) == ["train_lstm", "evaluate", "report"]


@pytest.mark.slow
def test_it_runs_in_an_unpacked_zip_without_git_on_a_users_file(project, make_npz):
    """The file's path is relative to the project."""
    shutil.move(make_npz(side=(28, 28)), project.path("data/raw/my.npz"))
    empty = project.path("bin")
    empty.mkdir()
    done = project.module("tools.run_dataset", "data/raw/my.npz", *TINY_RUN, PATH=str(empty))
    assert len(stages_run(done.stdout)) == 6
    assert project.path("runs/my/plots/report.html").exists()
    assert not project.path("metrics").exists()
    assert "DVC does not track" not in done.stdout


def write_pictures(path: Path) -> None:
    """Write pictures of two sizes."""
    arrays = tiny_arrays(side=(24, 24))
    for i, (image, label) in enumerate(zip(arrays["x_train"], arrays["y_train"], strict=True)):
        folder = path / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[i % 2 :]).save(folder / f"{i}.png")


def write_table(path: Path) -> None:
    arrays = tiny_arrays(side=(24, 24))
    table = pd.DataFrame(arrays["x_train"].reshape(60, -1)).assign(label=arrays["y_train"])
    table.to_csv(path, index=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"), [("my pictures", write_pictures), ("table.csv", write_table)]
)
def test_make_run_takes_a_folder_of_pictures_or_a_table(project, name, write):
    write(project.path(f"data/raw/{name}"))
    project.commit("a fresh clone")
    settings = (f"DATASET=data/raw/{name}", "EPOCHS=2", "SIZE=28")
    printed = project.run("make", "-s", "-o", ".venv/installed", "run", *settings).stdout
    end = printed.split(f"**data/raw/{name}**: ")[1]
    assert re.search(r"^\| hybrid +\| .+ \d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\) ", end, re.M)
    run = project.path(f"runs/{Path(name).stem}")
    assert (run / "plots/report.html").resolve().as_uri() in end
    manifest = json.loads((run / "data/prepared/manifest.json").read_text(encoding="utf-8"))
    assert manifest["image_shape"] == [28, 28, 1]
    assert any("resized to 28×28" in note for note in manifest["notes"])


@pytest.mark.extra
def test_a_failed_run_ends_with_the_stages_own_line(project):
    done = project.module("tools.run_dataset", "mnist", status=None, https_proxy=CLOSED_PORT)
    assert done.returncode != 0
    assert "cannot download" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "write KEY=VALUE, for example -S epochs=30"),
        ("epoch=3", "epoch is not a key of params.yaml"),
        ("epochs=0", "epochs is 0"),
        ("seed=2024-13-45", "not valid YAML"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(setting, message):
    with pytest.raises(StageError, match=re.escape(message)):
        parameters("digits", [setting])


@pytest.mark.parametrize("dataset", ["data/raw/digits", "data/raw/a/digits.npz", "digits"])
def test_a_folder_holds_runs_on_one_dataset(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    assert folder_of(dataset) == Path("runs/digits")
    Path("runs/digits").mkdir(parents=True)
    Path("runs/digits/params.yaml").write_text(f"dataset: {dataset}\n")
    assert folder_of(dataset) == Path("runs/digits")
    for other in {"data/raw/digits", "data/raw/b/digits.npz", "digits"} - {dataset}:
        with pytest.raises(StageError, match=f"^runs/digits holds a run on {dataset}; rename or"):
            folder_of(other)


def test_the_copy_has_what_the_stages_read_and_no_more(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    copy_project(tmp_path)
    assert not (tmp_path / "tests").exists()
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        for dep in stage["deps"]:
            if dep.startswith(("stages/", "studies/")):
                assert (tmp_path / dep).exists(), dep


@pytest.mark.parametrize("name", DATASETS)
def test_every_recipe_has_only_keys_and_values_that_params_yaml_allows(name):
    parse_params(parameters(name, []))


def test_a_recipe_is_printed_as_settings_of_an_experiment(project):
    words = shlex.split(project.module("tools.recipe", "Digits").stdout)
    assert words == ["-S", "dataset=digits", "-S", "epochs=20", "-S", "train.batch_size=32"]
    assert recipe("data/raw/my.npz") == {"dataset": "data/raw/my.npz"}
