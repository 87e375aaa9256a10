"""Model files: equal models give equal bytes, and nothing in a file is run."""

from __future__ import annotations

import json
import re
import resource
import time
import zipfile

import keras
import numpy as np
import pytest
from conftest import names
from test_fuzz import strange_weights

from stages.common.cli import StageError
from stages.models import build
from stages.models.shared.archive import load_model, save_model

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def model(make_params) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build("hybrid", (12, 12, 1), 3, make_params({"hybrid.padding": "same"}).hybrid)


@pytest.fixture
def members(model, tmp_path) -> dict[str, bytes]:
    """The members of the saved model `a.keras`."""
    save_model(model, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def refused(members, tmp_path):
    """Return a function that returns the reason why a file with changed members is refused."""

    def refuse(changes: dict, packing: int = zipfile.ZIP_STORED) -> str:
        with zipfile.ZipFile(tmp_path / "b.keras", "w", packing) as archive:
            for name, content in (members | changes).items():
                archive.writestr(name, content)
        with pytest.raises(StageError, match="is damaged or not a plain Keras model") as refusal:
            load_model(tmp_path / "b.keras")
        return str(refusal.value)

    return refuse


def test_two_saves_give_equal_bytes(model, tmp_path, monkeypatch):
    save_model(model, tmp_path / "a.keras")
    later = time.localtime(time.time() + 3600)
    monkeypatch.setattr(time, "localtime", lambda *_: later)  # ZIP members have a date
    save_model(model, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert names(tmp_path) == ["a.keras", "b.keras"]


def test_memory_addresses_are_not_saved(members):
    """Keras identifies shared objects by their addresses, which differ from run to run."""
    ids = re.findall(r'"shared_object_id": (\d+)', members["config.json"].decode())
    assert sorted(set(map(int, ids))) == list(range(1, len(set(ids)) + 1))
    assert len(set(ids)) < len(ids), "shared objects are still shared"


def test_plain_keras_loads_it_with_the_same_probabilities(model, tmp_path):
    save_model(model, tmp_path / "a.keras")
    x = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 1), dtype=np.uint8)
    expected = model.predict_on_batch(x)
    plain = keras.models.load_model(tmp_path / "a.keras", safe_mode=True)
    assert np.array_equal(plain.predict_on_batch(x), expected)
    assert np.array_equal(load_model(tmp_path / "a.keras").predict_on_batch(x), expected)


def test_unknown_or_compressed_members_are_refused(refused, tmp_path):
    for name in ("../sprung", "/sprung", "assets/a", "model.weights.npz"):
        assert "and nothing else" in refused({name: b"x"})
    assert "is compressed" in refused({}, zipfile.ZIP_DEFLATED)
    assert names(tmp_path) == ["a.keras", "b.keras"]


@pytest.mark.parametrize(
    ("layer", "change", "reason"),
    [
        ("Dense", {"class_name": "Lambda"}, "keras.layers.Lambda is not allowed"),
        ("Dense", {"class_name": "TFSMLayer"}, "keras.layers.TFSMLayer is not allowed"),
        ("Dense", {"class_name": "get_file", "module": "keras.utils"}, "keras.utils.get_file is"),
        ("Dense", {"class_name": "system", "module": "os"}, "os.system is not allowed"),
        ("Dense", {"registered_name": "my>Dense"}, "keras.layers.Dense is not allowed"),
        ("LSTM", {"config": {"unroll": True}}, "unrolled"),
        ("Dense", {"config": {"units": 10**9}}, "more than 16777216 values per image"),
        ("LSTM", {"config": {"units": 10**6}}, "its weights need"),
        ("InputLayer", {"config": {"batch_shape": [None, 10**5, 10**5, 1]}}, "input_shape=(5"),
    ],
)
def test_a_description_of_more_than_plain_layers_is_refused(
    refused, members, tmp_path, layer, change, reason
):
    """The last layer of a kind is changed. No memory is allocated for large layers."""
    config = json.loads(members["config.json"])
    item = [entry for entry in config["config"]["layers"] if entry["class_name"] == layer][-1]
    item.update(change | {"config": item["config"] | change.get("config", {})})
    for entry in config["config"]["layers"] if "config" in change else []:
        entry.pop("build_config", None)  # so that later layers accept any size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason in refused({"config.json": json.dumps(config)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    load_model(tmp_path / "a.keras")  # a refused file has no effect on later ones


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("external", "is a link"), ("soft", "is a link"),
        ("loop", "more bytes of weights than it has"),
        ("late", "more bytes of weights than it has"),
        *((kind, "is not an ordinary array") for kind in ("bomb", "outside", "virtual", "object")),
        ("nan", "NaN or infinite"),
    ],
)  # fmt: skip
def test_weights_that_are_not_plain_arrays_are_refused(refused, members, kind, reason):
    weights = strange_weights(kind, members["model.weights.h5"])
    assert reason in refused({"model.weights.h5": weights})


def test_a_missing_or_truncated_file_is_named(model, tmp_path):
    save_model(model, tmp_path / "a.keras")
    with pytest.raises(StageError, match=r"b\.keras is missing; run `dvc repro` to train it"):
        load_model(tmp_path / "b.keras")
    content = (tmp_path / "a.keras").read_bytes()
    for keep in (0, len(content) // 3, len(content) - 1):
        (tmp_path / "b.keras").write_bytes(content[:keep])
        with pytest.raises(StageError, match=r"b\.keras is damaged or not a plain Keras model"):
            load_model(tmp_path / "b.keras")
