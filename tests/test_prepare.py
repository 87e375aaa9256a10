"""The split is stratified, complete and repeatable; what is written is what was loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import names, tiny_arrays

from stages.datasets import Dataset, array_digest
from stages.files import StageError
from stages.prepare import split
from stages.prepared import read_manifest, read_split


def dataset(**shape) -> Dataset:
    arrays = tiny_arrays(**shape)
    classes = int(arrays["y_train"].max()) + 1
    return Dataset(**arrays, class_names=tuple("abcdefghij"[:classes]))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_every_class_gives_its_share_to_validation(fraction):
    parts = split(dataset(per_class=40), fraction, split_seed=3)
    assert np.bincount(parts["val"][1]).tolist() == [40 * fraction] * 3
    assert np.bincount(parts["train"][1]).tolist() == [40 * (1 - fraction)] * 3


def test_no_image_is_lost_or_in_two_parts():
    whole = dataset()
    parts = split(whole, 0.2, split_seed=1)
    images = [image.tobytes() for part in ("train", "val") for image in parts[part][0]]
    assert sorted(images) == sorted(image.tobytes() for image in whole.x_train)
    labels = dict(zip((i.tobytes() for i in whole.x_train), whole.y_train, strict=True))
    for x, y in (parts["train"], parts["val"]):
        assert [labels[image.tobytes()] for image in x] == y.tolist()
    assert parts["test"][0] is whole.x_test


def test_the_split_is_a_function_of_its_seed():
    first, again, other = (split(dataset(), 0.2, seed)["val"][0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_class_without_an_image_in_a_part_is_named(fraction):
    with pytest.raises(StageError, match=rf"class '.' has 20 of 60 .*val_fraction={fraction}"):
        split(dataset(), fraction, split_seed=1)


def test_a_single_image_of_a_class_is_too_few():
    whole = dataset()
    y = np.where(np.arange(60) == 7, 2, whole.y_train % 2)
    rare = Dataset(whole.x_train, y, whole.x_test, whole.y_test, whole.class_names)
    with pytest.raises(StageError, match="class 'c' has 1 of 60"):
        split(rare, 0.2, split_seed=1)


def test_the_stage_writes_what_it_loaded_and_says_so(project, make_npz):
    path = make_npz({"class_names": np.array(["ä", "<b>", "c d"])}, side=(9, 12, 3))
    project.set({"dataset": str(path), "prepare.val_fraction": 0.2})
    said = project.stage("prepare").stdout
    folder = project.path("data/prepared")
    assert names(folder.parent) == ["prepared"], "no temporary folder is left"
    manifest = read_manifest(folder)
    assert manifest["image_shape"] == [9, 12, 3]
    assert manifest["class_names"] == ["ä", "<b>", "c d"]
    assert [manifest["splits"][part]["images"] for part in ("train", "val", "test")] == [48, 12, 30]
    for part, facts in manifest["splits"].items():
        x, y = read_split(part, folder)
        assert x.dtype == np.uint8
        assert isinstance(x, np.memmap)
        assert facts["per_class"] == np.bincount(y).tolist()
        assert facts["x_sha256"] == array_digest(x)
        assert facts["y_sha256"] == array_digest(y)
        assert facts["x_sha256"][:16] in said
    assert "9×12×3, 3 classes" in said
    assert str(project.path("")) not in json.dumps(manifest), "the same bytes in any folder"


def test_preparing_again_gives_the_same_bytes_and_replaces_what_was_there(project):
    project.stage("prepare")
    first = {path.name: path.read_bytes() for path in project.path("data/prepared").iterdir()}
    project.path("data/prepared/left-over.npy").write_bytes(b"old")
    project.stage("prepare")
    again = {path.name: path.read_bytes() for path in project.path("data/prepared").iterdir()}
    assert again == first


def test_prepared_arrays_that_are_missing_or_cut_short_are_named(project):
    project.stage("prepare")
    folder = project.path("data/prepared")
    content = (folder / "x_val.npy").read_bytes()
    (folder / "x_val.npy").write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match=r"x_val\.npy is not a whole array"):
        read_split("val", folder)
    with pytest.raises(StageError, match=r"x_nonsense\.npy is not a whole array"):
        read_split("nonsense", folder)
