"""Model files: equal models give equal bytes; nothing in a file is run."""

from __future__ import annotations

import inspect
import json
import re
import resource
import time
import zipfile

import keras
import numpy as np
import pytest
from conftest import names
from fuzz_models import strange_weights

from stages import models
from stages.archive import load_model, save_model
from stages.archive_checks import LAYERS
from stages.files import StageError
from stages.models import build


@pytest.fixture
def model(make_params) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build("hybrid", (12, 12, 1), 3, make_params({"hybrid.padding": "same"}).hybrid)


def test_two_saves_are_the_same_bytes(model, tmp_path):
    save_model(model, tmp_path / "a.keras")
    time.sleep(2.1)  # a ZIP archive tells times in steps of two seconds
    save_model(model, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert names(tmp_path) == ["a.keras", "b.keras"]


def test_no_address_in_memory_is_saved(model, tmp_path):
    """Keras numbers objects that layers share by their addresses, which no two runs have alike."""
    save_model(model, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = json.loads(archive.read("config.json"))
    ids = re.findall(r"'shared_object_id': (\d+)", str(config))
    assert sorted(set(map(int, ids))) == list(range(1, len(set(ids)) + 1))
    assert len(set(ids)) < len(ids), "what was shared still is"


def test_plain_keras_reloads_it_with_the_same_probabilities(model, tmp_path):
    save_model(model, tmp_path / "a.keras")
    x = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 1), dtype=np.uint8)
    expected = model.predict(x, verbose=0)
    plain = keras.models.load_model(tmp_path / "a.keras", safe_mode=True)
    assert np.array_equal(plain.predict(x, verbose=0), expected)
    assert np.array_equal(load_model(tmp_path / "a.keras").predict(x, verbose=0), expected)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    unsafe = keras.Sequential([keras.layers.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    unsafe.save(tmp_path / "a.keras")
    with pytest.raises(StageError, match="is not a whole, plain Keras model"):
        load_model(tmp_path / "a.keras")


def changed(path, target, **members) -> None:
    """Copy a model file with members changed, added, or (None) left out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
        contents = {name: source.read(name) for name in source.namelist()} | members
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)


def refused(path) -> str:
    with pytest.raises(StageError, match="is not a whole, plain Keras model") as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("name", ["../sprung", "/sprung", "assets/a", "model.weights.npz"])
def test_a_member_that_keras_does_not_write_is_refused(model, tmp_path, name):
    save_model(model, tmp_path / "a.keras")
    changed(tmp_path / "a.keras", tmp_path / "b.keras", **{name: b"x"})
    assert "and nothing else" in refused(tmp_path / "b.keras")
    assert names(tmp_path) == ["a.keras", "b.keras"]


def test_a_compressed_member_is_refused(model, tmp_path):
    save_model(model, tmp_path / "a.keras")
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as source,
        zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert "is compressed" in refused(tmp_path / "b.keras")


@pytest.mark.parametrize(
    ("layer", "change", "said"),
    [
        ("Dense", {"class_name": "Lambda"}, "keras.layers.Lambda is not one of the layers"),
        ("Dense", {"class_name": "TFSMLayer"}, "TFSMLayer is not one of the layers"),
        ("Dense", {"class_name": "get_file", "module": "keras.utils"}, "keras.utils.get_file"),
        ("Dense", {"class_name": "system", "module": "os"}, "os.system is not"),
        ("Dense", {"registered_name": "my>Dense"}, "is not one of the layers"),
        ("LSTM", {"config": {"unroll": True}}, "unrolled"),
        ("Dense", {"config": {"units": 10**9}}, "bytes of weights and holds"),
        ("LSTM", {"config": {"units": 10**6}}, "bytes of weights and holds"),
        ("InputLayer", {"config": {"batch_shape": [None, 10**5, 10**5, 1]}}, ""),
    ],
)
def test_a_description_of_more_than_plain_layers_is_refused(model, tmp_path, layer, change, said):
    """The last layer of a kind is changed; sizes are refused before memory is taken for them."""
    save_model(model, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = json.loads(archive.read("config.json"))
    item = [entry for entry in config["config"]["layers"] if entry["class_name"] == layer][-1]
    inner = change.get("config", {})
    item.update(change | {"config": item["config"] | inner})
    if inner:  # what follows takes any size
        for entry in config["config"]["layers"]:
            entry.pop("build_config", None)
    changed(tmp_path / "a.keras", tmp_path / "b.keras", **{"config.json": json.dumps(config)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refused(tmp_path / "b.keras")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    load_model(tmp_path / "a.keras")  # what was refused leaves nothing behind


@pytest.mark.parametrize(
    ("kind", "said"),
    [("external", "is a link"), ("soft", "is a link"), ("loop", "more bytes of weights than"),
     ("bomb", "is not a plain array"), ("late", "more bytes of weights than it holds"),
     ("outside", "is not a plain array"), ("virtual", "is not a plain array"),
     ("nan", "are not finite"), ("object", "is not a plain array")],
)  # fmt: skip
def test_weights_that_are_not_plain_arrays_are_refused(model, tmp_path, kind, said):
    save_model(model, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        weights = strange_weights(kind, archive.read("model.weights.h5"))
    changed(tmp_path / "a.keras", tmp_path / "b.keras", **{"model.weights.h5": weights})
    assert said in refused(tmp_path / "b.keras")


def test_every_layer_of_the_builders_is_allowed():
    source = inspect.getsource(models)
    used = set(re.findall(r"\blayers\.([A-Z]\w+)\(", source)) - {"Input"}
    assert {"Conv2D", "LSTM"} <= used
    assert used <= LAYERS


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused_in_one_line(model, tmp_path, keep):
    path = tmp_path / "a.keras"
    save_model(model, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(StageError, match=r"a\.keras is not a whole, plain Keras model") as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StageError, match=r"a\.keras is missing; `dvc repro` trains it"):
        load_model(tmp_path / "a.keras")
