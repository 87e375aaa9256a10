"""The split is stratified, complete and repeatable; the stage stores exactly the loaded data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import names, set_keys, tiny_arrays

from stages import prepare
from stages.common.arrays import PREPARED, array_digest, read_manifest, read_split
from stages.common.cli import StageError
from stages.datasets.labelled_images import Dataset
from stages.datasets.splits import split

WHOLE = Dataset(**tiny_arrays(), class_names=("a", "b", "c"))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_every_class_gives_its_share_to_validation(fraction):
    parts = split(WHOLE, fraction, split_seed=3)
    assert np.bincount(parts["val"][1]).tolist() == [20 * fraction] * 3
    assert np.bincount(parts["train"][1]).tolist() == [20 * (1 - fraction)] * 3


def test_no_image_is_lost_or_in_two_parts():
    parts = split(WHOLE, 0.2, split_seed=1)
    images = [image.tobytes() for part in ("train", "val") for image in parts[part][0]]
    assert sorted(images) == sorted(image.tobytes() for image in WHOLE.x_train)
    labels = dict(zip((i.tobytes() for i in WHOLE.x_train), WHOLE.y_train, strict=True))
    for x, y in (parts["train"], parts["val"]):
        assert [labels[image.tobytes()] for image in x] == y.tolist()
    assert parts["test"][0] is WHOLE.x_test


def test_the_split_depends_on_its_seed_only():
    first, again, other = (split(WHOLE, 0.2, seed)["val"][0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


ONE_IMAGE_OF_C = np.where(np.arange(60) == 7, 2, WHOLE.y_train % 2)


@pytest.mark.parametrize(
    ("y_train", "fraction", "said"),
    [
        (WHOLE.y_train, 0.01, r"class '.' has too few .* \(20\) .*val_fraction=0.01"),
        (WHOLE.y_train, 0.99, r"class '.' has too few .* \(20\) .*val_fraction=0.99"),
        (ONE_IMAGE_OF_C, 0.2, r"class 'c' has too few .* \(1\) .*val_fraction=0.2"),
    ],
)
def test_a_class_too_small_for_the_split_is_named(y_train, fraction, said):
    dataset = Dataset(WHOLE.x_train, y_train, WHOLE.x_test, WHOLE.y_test, WHOLE.class_names)
    with pytest.raises(StageError, match=said):
        split(dataset, fraction, split_seed=1)


@pytest.fixture
def run_stage(tiny_document, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Return a function that runs the stage in an empty folder and returns its output."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(changes: dict) -> str:
        text = yaml.safe_dump(set_keys(tiny_document, changes))
        Path("params.yaml").write_text(text, encoding="utf-8")
        prepare.main()
        return capsys.readouterr().out

    return run


def test_the_stage_stores_and_prints_the_loaded_data(run_stage, make_npz):
    path = make_npz({"class_names": np.array(["ä", "<b>", "c d"])}, side=(9, 12, 3))
    printed = run_stage({"dataset": str(path), "prepare.val_fraction": 0.2})
    assert names(PREPARED.parent) == ["prepared"], "no temporary folder is left"
    manifest = read_manifest()
    assert manifest["image_shape"] == [9, 12, 3]
    assert manifest["class_names"] == ["ä", "<b>", "c d"]
    assert [manifest["splits"][part]["images"] for part in ("train", "val", "test")] == [48, 12, 30]
    for part, facts in manifest["splits"].items():
        data = read_split(part)
        assert facts["per_class"] == np.bincount(data.y).tolist()
        assert facts["x_sha256"] == array_digest(data.x)
        assert facts["y_sha256"] == array_digest(data.y)
        assert facts["x_sha256"][:16] in printed
    assert "9×12×3, 3 classes" in printed
    with np.load(path) as arrays:
        assert np.array_equal(read_split("test").x, arrays["x_test"])
    assert str(Path.cwd()) not in json.dumps(manifest), "equal bytes in any folder"


def test_a_second_run_replaces_everything_with_the_same_bytes(run_stage):
    run_stage({})
    first = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    (PREPARED / "stale.npy").write_bytes(b"old")
    run_stage({})
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == first
