"""Model files: equal models give equal bytes; nothing in a file is run."""

from __future__ import annotations

import json
import re
import time
import zipfile

import keras
import numpy as np
import pytest
from conftest import names

from stages.archive import load_model, save_model
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
