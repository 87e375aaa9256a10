"""`tools.verify`: equal results are called the same, and every difference is found."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Project
from review_project import edit

from stages.common.cli import StageError
from stages.common.files import read_csv, write_csv
from stages.common.params import ENSEMBLE, model_names
from tools import verify
from tools.verify import against_committed, changed


@pytest.fixture
def differences(clone, pipeline, capsys):
    """Return a function that compares `clone` with the committed `pipeline`.

    It returns the names of the results that differ; `.text` is all that was printed.
    """

    def compare() -> list[str]:
        same = against_committed(pipeline.folder, clone.folder)
        compare.text = capsys.readouterr().out
        found = re.findall(r"^  DIFFERENT  ([^:\n]+)", compare.text, re.M)
        assert same == (not found)
        return found

    return compare


# --- on the recorded machine --------------------------------------------------------------


def test_equal_results_are_the_same(differences):
    assert differences() == []
    assert differences.text.startswith("Rounding, threads and versions are the recorded ones")
    assert differences.text.endswith("all the same\n")
    same = set(re.findall(r"^  same +(\S+)$", differences.text, re.M))
    per_model = [f"plots/history/{name}.csv" for name in model_names()]
    per_model += [f"data/models/{name}.keras" for name in model_names()]
    assert same >= {"metrics/test.json", "metrics/results.csv", "plots/confusion.csv",
                    "data/prepared", "data/predictions", *per_model}  # fmt: skip


def test_seconds_may_differ_but_nothing_else(clone, differences):
    edit(clone, "data/timing/cnn.json", {"train_seconds": 1.0, "peak_memory_bytes": 7})
    clone.path("plots/report.html").write_text("quotes seconds", encoding="utf-8")
    results = clone.path("metrics/results.csv")
    header, *rows = [line.split(",") for line in clone.read("metrics/results.csv").splitlines()]
    for column, found in (("train_seconds", []), ("errors", ["metrics/results.csv"])):
        rows[0][header.index(column)] = "1"
        results.write_text("".join(f"{','.join(row)}\n" for row in (header, *rows)), "utf-8")
        assert differences() == found


@pytest.mark.parametrize(
    "name", ["metrics/test.json", "plots/history/lstm.csv", "plots/per_class.csv"]
)
def test_one_changed_bit_is_found(clone, differences, name):
    content = bytearray(clone.path(name).read_bytes())
    content[len(content) // 2] ^= 1
    clone.path(name).write_bytes(content)
    assert differences() == [name]


def test_missing_files_and_other_models_are_found(clone, differences):
    clone.path("plots/confusion.csv").unlink()
    lock = yaml.safe_load(clone.read("dvc.lock"))
    lock["stages"]["train_cnn"]["outs"][0]["md5"] = "0" * 32
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    assert differences() == [
        "data/models/cnn.keras", "plots/confusion.csv",
    ]  # fmt: skip


# --- on another machine -------------------------------------------------------------------


def edit_results(project: Project, model: str, **changes: object) -> None:
    """Change a model's row of the result table."""
    rows = read_csv(project.path("metrics/results.csv"))
    write_csv(project.path("metrics/results.csv"),
              [row | changes if row["model"] == model else row for row in rows])  # fmt: skip


@pytest.fixture
def elsewhere(clone) -> Project:
    """A state that another machine rebuilt."""
    edit_results(clone, "lstm", threads="1×7/1")
    return clone


def test_elsewhere_accuracies_may_differ_a_little(elsewhere, differences):
    rows = read_csv(elsewhere.path("metrics/results.csv"))
    assert {row["model"] for row in rows} == {*model_names(), ENSEMBLE}
    for row in rows:
        edit_results(elsewhere, row["model"], test_accuracy=float(row["test_accuracy"]) - 2 / 360)
    assert differences() == []
    assert differences.text.startswith("This machine differs from the recorded one (threads of ")
    assert "Accuracies may differ by up to 4 standard errors" in differences.text
    assert differences.text.endswith("all values agree\n")


@pytest.mark.parametrize(
    ("model", "column", "change", "found"),
    [
        ("hybrid", "test_accuracy", -0.4, "hybrid test accuracy"),
        ("ensemble", "test_accuracy", 0.4, "ensemble test accuracy"),
        ("cnn", "val_accuracy", -0.4, "cnn val accuracy"),
        ("cnn", "parameters", 1, "cnn parameters"),
        ("lstm", "epochs", -1, "lstm epochs"),
    ],
)
def test_elsewhere_a_large_difference_is_found(
    elsewhere, differences, model, column, change, found
):
    (row,) = (r for r in read_csv(elsewhere.path("metrics/results.csv")) if r["model"] == model)
    edit_results(elsewhere, model, **{column: float(row[column]) + change})
    assert differences() == [found]


def test_elsewhere_the_data_must_be_the_same(elsewhere, differences):
    lock = yaml.safe_load(elsewhere.read("dvc.lock"))
    lock["stages"]["prepare"]["outs"][0]["md5"] = "0" * 32
    elsewhere.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    assert differences() == ["data/prepared"]


# --- running ------------------------------------------------------------------------------


def test_settings_are_those_of_dvc_exp_run(tiny_document):
    wanted = changed(tiny_document, ["epochs=7", "lstm.units=[4, 5]", "cnn.learning_rate=1e-05"])
    assert (wanted["epochs"], wanted["lstm"]["units"]) == (7, [4, 5])
    assert wanted["cnn"]["learning_rate"] == 1e-05
    assert changed(tiny_document, []) == tiny_document


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs.more=1", "epochs.more is not a key of params.yaml"),
        ("epochs=0", "params.yaml: epochs is 0"),
        ("dataset=[", "-S dataset=[: the value is not valid YAML"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(tiny_document, setting, message):
    with pytest.raises(StageError, match=f"^{re.escape(message)}"):
        changed(tiny_document, [setting])


def test_a_failed_run_says_how_to_continue_in_a_line_that_can_be_pasted(
    pipeline, tmp_path, monkeypatch
):
    def fail(folder: Path) -> None:
        raise verify.ReproError(f"dvc repro failed in {folder.name}")

    words = ["-S", "dataset=my data.npz", "--folder", str(tmp_path / "two words")]
    monkeypatch.chdir(pipeline.folder)
    monkeypatch.setattr(verify, "reproduce", fail)
    monkeypatch.setattr(sys, "argv", ["verify", *words])
    with pytest.raises(StageError) as raised:
        verify.main()
    message, command = str(raised.value).split("; to continue, type: ")
    assert message == "dvc repro failed in first"
    assert shlex.split(command) == [sys.executable, "-m", "tools.verify", *words]


def test_in_a_subfolder_the_whole_repository_is_cloned(pipeline, tmp_path, monkeypatch):
    inner = pipeline.copy_to(tmp_path / "outer/inner")
    inner.run("rm", "-rf", ".git", "data")
    pipeline.at(tmp_path / "outer").commit("all")
    monkeypatch.chdir(inner.folder)
    project = verify.clone(tmp_path / "clone", {"epochs": 5})
    assert project == tmp_path / "clone/inner"
    assert yaml.safe_load((project / "params.yaml").read_text()) == {"epochs": 5}
    assert not (project / "dvc.lock").exists()
    assert verify.clone(tmp_path / "clone", {"epochs": 5}) == project
    with pytest.raises(StageError, match="other settings; delete this folder"):
        verify.clone(tmp_path / "clone", {"epochs": 6})


@pytest.mark.slow
def test_a_fresh_clone_gives_the_committed_bytes(clone, tmp_path):
    """The whole command, on a state that was made in another folder. A second call continues."""
    folder, rebuilt = tmp_path / "clones", clone.at(tmp_path / "clones/rebuilt")
    done = clone.module("tools.verify", "--folder", str(folder))
    assert done.stdout.endswith("all the same\n")
    model = "data/models/cnn.keras"
    assert rebuilt.path(model).read_bytes() == clone.path(model).read_bytes()
    assert "Running stage 'report'" in (folder / "rebuilt.log").read_text(encoding="utf-8")
    with rebuilt.path("plots/history/cnn.csv").open("a", encoding="utf-8") as curves:
        curves.write("5,1,1,0,0,0\n")  # `dvc repro` sees the change and trains the CNN again
    done = clone.module("tools.verify", "--folder", str(folder))
    assert done.stdout.endswith("all the same\n")
    done = clone.module("tools.verify", "-S", "dataset=none.npz", status=1)
    assert re.fullmatch(r"error: dvc repro failed: .*none\.npz.*; to continue, type: .*\n",
                        done.stderr)  # fmt: skip


@pytest.mark.slow
def test_two_fresh_clones_give_the_same_files(clone):
    done = clone.module("tools.verify", "-S", "epochs=2", "-S", "cnn.dropout=0.1")
    assert "running two fresh clones; both must give the same results" in done.stdout
    assert done.stdout.endswith("all the same\n")
    clones = Path(done.stdout.partition("log: ")[2].partition("/first")[0])
    assert not clones.exists(), "removed, because nothing differs"
