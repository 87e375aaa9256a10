"""The key of a trial: what changes it, and that recorded trials are named by it."""

from __future__ import annotations

import copy
import json

import pytest
from conftest import ROOT, set_keys

from stages.common.overrides import flatten
from stages.common.params import ADDED, Prepare, Train, model_names, parse_params, with_added
from stages.datasets.catalog import load_dataset
from stages.datasets.published import REMOTES, cache_folder
from stages.datasets.splits import manifest, split
from studies.engine import trial
from studies.engine.trial import trial_key

MANIFEST = {
    "dataset": "digits",
    "image_shape": [8, 8, 1],
    "class_names": ["0", "1"],
    "splits": {
        part: {"images": 9, "per_class": [4, 5], "x_sha256": f"{part} x", "y_sha256": f"{part} y"}
        for part in ("train", "val", "test")
    },
}
DATA = {  # what identifies the data, and another value
    "image_shape": [8, 8, 3],
    "class_names": ["0", "1", "2"],
    **{f"splits.{part}.{array}_sha256": "other"
       for part in ("train", "val", "test") for array in "xy"},
}  # fmt: skip
NOT_DATA = {
    "dataset": "own.npz", "class_names": ["zero", "one"], "splits.train.per_class": [1, 8],
    "splits.val.images": 10,
}  # fmt: skip


@pytest.mark.parametrize("model", model_names())
def test_the_key_changes_with_every_parameter_of_the_model_and_no_other(tiny_document, model):
    key = trial_key(tiny_document, model, "test", MANIFEST)
    for name in flatten(tiny_document):
        changed = trial_key(set_keys(tiny_document, {name: "other"}), model, "test", MANIFEST)
        counts = name.split(".")[0] in ("epochs", "seed", "train", model)
        assert (changed != key) == counts, name


@pytest.mark.parametrize("model", sorted(set(ADDED) - {"prepare", "train", "evaluate"}))
def test_a_parameter_added_later_counts_only_if_it_changes_the_training(tiny_document, model):
    older = {"train": {"batch_size": 8}, model: {"units": [8]}}
    recorded = set_keys(tiny_document, older)  # as from before it was added
    key = trial_key(recorded, model, "test", MANIFEST)
    now = with_added(recorded)
    params = parse_params(tiny_document)
    for section, known in (("train", Train), (model, type(params.models[model]))):
        assert now[section] == older[section] | ADDED[section]
        for name in ADDED[section]:
            other = set_keys(now, {f"{section}.{name}": "other"})
            assert with_added(other)[section][name] == "other"
            assert trial_key(other, model, "test", MANIFEST) != key
            assert name in known.model_fields
    assert trial_key(now, model, "test", MANIFEST) == key


def test_the_key_changes_with_the_data_and_not_with_their_description(tiny_document):
    key = trial_key(tiny_document, "cnn", "test", MANIFEST)
    for changes, counts in ((DATA, True), (NOT_DATA, False)):
        for name, value in changes.items():
            other = set_keys(copy.deepcopy(MANIFEST), {name: value})
            assert (trial_key(tiny_document, "cnn", "test", other) != key) == counts, name


def test_the_key_changes_with_the_model_the_scored_part_and_the_version(tiny_document, monkeypatch):
    same = tiny_document | {"lstm": tiny_document["cnn"]}
    keys = {
        trial_key(same, model, part, MANIFEST)
        for model in ("cnn", "lstm")
        for part in ("test", "val")
    }
    monkeypatch.setattr(trial, "RESULTS_VERSION", trial.RESULTS_VERSION + 1)
    keys.add(trial_key(same, "cnn", "test", MANIFEST))
    assert len(keys) == 5


@pytest.mark.parametrize("dataset", REMOTES)
def test_recorded_trials_are_named_by_their_key(tiny_document, dataset):
    if not all((cache_folder() / path).exists() for path in REMOTES[dataset].files):
        pytest.skip(f"{dataset} is not in {cache_folder()}")
    loaded = load_dataset(dataset)
    manifests: dict[str, dict] = {}
    recorded = [json.loads(path.read_text()) | {"name": path.stem}
                for path in (ROOT / "studies/trials").glob("*.json")]  # fmt: skip
    recorded = [each for each in recorded if each["job"]["params"]["dataset"] == dataset]
    assert recorded
    for each in recorded:
        job, params = each["job"], each["job"]["params"]
        prepare = Prepare(**tiny_document["prepare"] | params["prepare"])
        if (place := prepare.model_dump_json()) not in manifests:
            parts = split(loaded, prepare)
            manifests[place] = manifest(dataset, loaded.class_names, parts)
        facts = copy.deepcopy(manifests[place])
        scored = "test" if "accuracy" in each["result"] else "val"
        if scored == "val":
            del facts["splits"]["test"]
        assert each["name"] == job["key"] == trial_key(params, job["model"], scored, facts)
