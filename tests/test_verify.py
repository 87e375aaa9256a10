"""`make verify`: what is the same is called the same, whatever is not is found."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import Project, set_keys

from stages.files import StageError
from stages.params import ENSEMBLE, MODELS
from stages.verify import against_committed, changed, fingerprints, print_files


def edit(project: Project, name: str, changes: dict) -> None:
    """Change keys of a JSON or YAML file by hand."""
    path = project.path(name)
    document = set_keys(yaml.safe_load(path.read_text(encoding="utf-8")), changes)
    dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
    path.write_text(dump(document), encoding="utf-8")


def verdict(project: Project, pipeline: Project, capsys) -> tuple[bool, list[str], str]:
    """Return whether all is as committed, the names of what is not, and all that was said."""
    right = against_committed(pipeline.folder, project.folder)
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("  ") and "DIFFERENT" in line]
    return right, [line.split("  ")[1] for line in lines], said


# --- on the recorded machine --------------------------------------------------------------


def test_a_rebuilt_state_is_the_committed_one_exactly(pipeline, clone, capsys):
    right, found, said = verdict(clone, pipeline, capsys)
    assert right
    assert found == []
    assert said.startswith("exactly, for processor, threads and versions are the recorded ones")
    assert said.endswith("all the same\n")
    same = [line.split()[0] for line in said.splitlines() if line.endswith("  same")]
    csvs = [f"plots/{kind}/{name}.csv" for name in MODELS for kind in ("history", "confusion")]
    models = [f"data/models/{name}.keras" for name in MODELS]
    assert {"dvc.lock", "metrics/evaluation.json", "metrics/results.csv", "data/prepared",
            "data/predictions", *csvs, *models} <= set(same)  # fmt: skip


def test_seconds_may_differ_and_nothing_else(pipeline, clone, capsys):
    timings = {"train_seconds": 1.0, "seconds_per_epoch": 0.5, "examples_per_second": 7.0}
    edit(clone, "metrics/timing/cnn.json", timings)
    clone.path("plots/report.html").write_text("quotes seconds", encoding="utf-8")
    results = clone.path("metrics/results.csv")
    rows = [line.split(",") for line in results.read_text(encoding="utf-8").splitlines()]
    at = rows[0].index("train_seconds")
    rows[1][at] = "1.0"
    results.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    assert verdict(clone, pipeline, capsys)[0]
    rows[1][rows[0].index("errors")] += "1"
    results.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    assert verdict(clone, pipeline, capsys)[:2] == (False, ["metrics/results.csv"])


def test_the_order_of_siblings_in_the_lock_may_differ(pipeline, clone, capsys):
    """DVC runs them in the order of Python's hashes, which differs from process to process."""
    lock = yaml.safe_load(clone.read("dvc.lock"))
    lock["stages"] = dict(reversed(lock["stages"].items()))
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    assert clone.read("dvc.lock") != pipeline.read("dvc.lock")
    assert verdict(clone, pipeline, capsys)[0]
    lock["stages"]["report"]["cmd"] += " "
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    assert verdict(clone, pipeline, capsys)[1] == ["dvc.lock"]


@pytest.mark.parametrize(
    "name", ["metrics/evaluation.json", "plots/history/lstm.csv", "plots/readme/per_class.png"]
)
def test_one_bit_of_a_file_is_found(pipeline, clone, capsys, name):
    content = bytearray(clone.path(name).read_bytes())
    content[len(content) // 2] ^= 1
    clone.path(name).write_bytes(content)
    assert verdict(clone, pipeline, capsys)[:2] == (False, [name])


def test_a_missing_and_a_new_file_are_found(pipeline, clone, capsys):
    clone.path("plots/confusion/cnn.csv").rename(clone.path("plots/confusion/other.csv"))
    assert verdict(clone, pipeline, capsys)[:2] == (
        False, ["plots/confusion/cnn.csv", "plots/confusion/other.csv"],
    )  # fmt: skip


def test_another_model_is_found_by_dvc_lock_and_in_the_file(pipeline, clone, capsys):
    lock = yaml.safe_load(clone.read("dvc.lock"))
    lock["stages"]["train_cnn"]["outs"][0]["md5"] = "0" * 32
    clone.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    assert verdict(clone, pipeline, capsys)[:2] == (False, ["data/models/cnn.keras", "dvc.lock"])
    shutil.copy(pipeline.path("dvc.lock"), clone.path("dvc.lock"))
    with clone.path("data/models/lstm.keras").open("ab") as model:
        model.write(b"x")
    assert not print_files(fingerprints(pipeline.folder), fingerprints(clone.folder))
    assert "data/models/lstm.keras" in capsys.readouterr().out.partition("DIFFERENT")[0]


# --- on another ---------------------------------------------------------------------------


@pytest.fixture
def elsewhere(clone) -> Project:
    """A state that another machine rebuilt; `pipeline` is what was committed."""
    recorded = json.loads(clone.read("metrics/timing/lstm.json"))["threads"]["inter_op"]
    edit(clone, "metrics/timing/lstm.json", {"threads.inter_op": recorded + 1})
    return clone


def test_elsewhere_accuracies_may_differ_a_little(pipeline, elsewhere, capsys):
    test = json.loads(pipeline.read("metrics/evaluation.json"))
    for name in (*MODELS, ENSEMBLE):
        edit(elsewhere, "metrics/evaluation.json",
             {f"{name}.accuracy": test[name]["accuracy"] - 2 / 360})  # fmt: skip
    right, found, said = verdict(elsewhere, pipeline, capsys)
    assert right, said
    assert found == []
    assert said.startswith("within a tolerance, for this machine is not the recorded one: threads")
    assert "4 standard errors" in said
    assert said.endswith("all within\n")


@pytest.mark.parametrize(
    ("file", "key", "change", "found"),
    [
        ("metrics/evaluation.json", "hybrid.accuracy", -0.4, "hybrid test accuracy"),
        ("metrics/evaluation.json", "ensemble.accuracy", 0.4, "ensemble test accuracy"),
        ("metrics/train/cnn.json", "val.accuracy", -0.4, "cnn validation accuracy"),
        ("metrics/train/cnn.json", "parameters", 1, "cnn parameters"),
        ("metrics/train/lstm.json", "epochs", -1, "lstm epochs"),
    ],
)
def test_elsewhere_too_much_is_found(pipeline, elsewhere, capsys, file, key, change, found):
    value = json.loads(elsewhere.read(file))
    for part in key.split("."):
        value = value[part]
    edit(elsewhere, file, {key: value + change})
    right, names, said = verdict(elsewhere, pipeline, capsys)
    assert not right
    assert names == [found], said


def test_elsewhere_the_data_must_be_the_same(pipeline, elsewhere, capsys):
    lock = yaml.safe_load(elsewhere.read("dvc.lock"))
    lock["stages"]["prepare"]["outs"][0]["md5"] = "0" * 32
    elsewhere.path("dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    right, names, _ = verdict(elsewhere, pipeline, capsys)
    assert not right
    assert names == ["data/prepared"]


# --- running ------------------------------------------------------------------------------


def test_settings_are_those_of_dvc_exp_run(tiny_document):
    wanted = changed(tiny_document, ["epochs=7", "lstm.units=[4, 5]", "cnn.learning_rate=1e-05"])
    assert wanted["epochs"] == 7
    assert wanted["lstm"]["units"] == [4, 5]
    assert changed(tiny_document, []) == tiny_document


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epoch=7", "epoch is not a key of params.yaml"),
        ("epochs.more=1", "epochs.more is not a key of params.yaml"),
        ("epochs=0", "params.yaml: epochs is 0"),
        ("dataset=[", "-S dataset=[: while parsing"),
        ("dataset=2024-99-99", "-S dataset=2024-99-99: month must be in 1..12"),
    ],
)
def test_a_setting_that_is_none_ends_in_one_line(tiny_document, setting, said):
    with pytest.raises(StageError, match=f"^{re.escape(said)}"):
        changed(tiny_document, [setting])


def test_a_fresh_clone_gives_the_committed_bytes(clone, tmp_path):
    """The whole command, on a state that another folder made; the second call goes on."""
    done = clone.stage("verify", "--folder", str(tmp_path / "clones"))
    assert "a fresh clone against the committed figures" in done.stdout
    assert done.stdout.endswith("all the same\n")
    rebuilt = tmp_path / "clones/rebuilt"
    assert (rebuilt / "data/models/cnn.keras").read_bytes() == clone.path(
        "data/models/cnn.keras"
    ).read_bytes()
    assert "Running stage 'report'" in (tmp_path / "clones/rebuilt.log").read_text(encoding="utf-8")
    with (rebuilt / "plots/history/cnn.csv").open("a", encoding="utf-8") as curves:
        curves.write("5,1,1,0,0,0\n")
    # DVC sees that the file is not what its stage wrote, and makes it again
    again = clone.stage("verify", "--folder", str(tmp_path / "clones"))
    assert again.stdout.endswith("all the same\n")


def test_a_run_that_fails_is_told_in_a_line_that_says_how_to_go_on(clone, tmp_path):
    folder = tmp_path / "clones"
    done = clone.stage("verify", "-S", "dataset=none.npz", "--folder", str(folder), status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "none.npz" in done.stderr
    assert f"-S dataset=none.npz --folder {folder}` goes on" in done.stderr


@pytest.mark.slow
def test_two_fresh_clones_are_the_same_file_by_file(clone):
    done = clone.stage("verify", "-S", "epochs=2", "-S", "cnn.dropout=0.1")
    assert "two fresh clones against each other" in done.stdout
    assert done.stdout.endswith("all the same\n")
    for path in ("dvc.lock", "data/models/cnn.keras", "data/predictions/cnn.npy",
                 "plots/figures/learning_curves.png", "metrics/train/lstm.json"):  # fmt: skip
        assert any(
            line.split()[0] == path and line.endswith("  same") for line in done.stdout.splitlines()
        ), path
    clones = Path(done.stdout.partition("log: ")[2].partition("/first")[0])
    assert not clones.exists(), "nothing is left of a good verdict"
