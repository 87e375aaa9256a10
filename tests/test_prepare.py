"""The split is stratified, complete and repeatable; the stage stores exactly the loaded data."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from conftest import names, set_keys, tiny_arrays
from own_data import PREPARE, load

from stages import prepare
from stages.common.arrays import PREPARED, array_digest, read_manifest, read_split
from stages.common.cli import StageError
from stages.datasets.labelled_images import Dataset
from stages.datasets.splits import reorder, split

WHOLE = Dataset(**tiny_arrays(), class_names=("a", "b", "c"))


def divided(dataset: Dataset, **settings):
    return split(dataset, PREPARE.model_copy(update=settings))


def own(**others) -> Dataset:
    """Return own data sorted by class, in fresh arrays, because `split` reorders them in place."""
    arrays = {key: array.copy() for key, array in tiny_arrays().items()}
    order = np.argsort(arrays["y_train"], kind="stable")
    arrays |= {"x_train": arrays["x_train"][order], "y_train": arrays["y_train"][order]}
    return Dataset(**arrays | others, class_names=("a", "b", "c"), own=True)


def pairs(*parts) -> list[tuple[bytes, int]]:
    """Return all images with their labels, sorted."""
    return sorted(
        (i.tobytes(), int(label)) for x, y in parts for i, label in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_split_is_stratified_and_loses_no_image(fraction):
    parts = divided(WHOLE, val_fraction=fraction, split_seed=3)
    labels = dict(zip((i.tobytes() for i in WHOLE.x_train), WHOLE.y_train, strict=True))
    for part, share in (("val", fraction), ("train", 1 - fraction)):
        x, y = parts[part]
        assert np.bincount(y).tolist() == [20 * share] * 3
        assert [labels.pop(image.tobytes()) for image in x] == y.tolist()
    assert labels == {}
    assert parts["test"][0] is WHOLE.x_test


def test_the_split_depends_on_its_seed():
    for make in (lambda: WHOLE, own):
        first, again, other = (divided(make(), split_seed=seed)["val"][0] for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("given", [(), ("test",), ("test", "val")])
def test_own_data_are_shuffled_and_get_the_parts_that_they_lack(given):
    none = {"x_test": None, "y_test": None} if "test" not in given else {}
    val = {"x_val": WHOLE.x_test.copy(), "y_val": WHOLE.y_test} if "val" in given else {}
    parts = divided(own(**none | val), test_fraction=0.25, val_fraction=0.2)
    assert list(parts) == ["train", "val", "test"]
    each = {"test": 10 if "test" in given else 5}
    left = 20 if "test" in given else 15
    each["val"] = 10 if "val" in given else left // 5
    each["train"] = left if "val" in given else left - each["val"]
    for part, (_, y) in parts.items():
        assert np.bincount(y).tolist() == [each[part]] * 3
        if part not in given:
            assert np.count_nonzero(np.diff(y)) > 3, "it is not sorted by class"
    taken = [parts[part] for part in parts if part not in given]
    assert pairs(*taken) == pairs((WHOLE.x_train, WHOLE.y_train))
    for part in given:
        assert pairs(parts[part]) == pairs((WHOLE.x_test, WHOLE.y_test))


@pytest.mark.parametrize("make", [own, lambda: WHOLE])
def test_a_subset_of_the_training_set_is_stratified_and_leaves_the_other_parts(make):
    whole, part = divided(make()), divided(make(), train_images=12)
    assert np.bincount(part["train"][1]).tolist() == [4, 4, 4]
    assert set(pairs(part["train"])) < set(pairs(whole["train"]))
    for name in ("val", "test"):
        assert pairs(part[name]) == pairs(whole[name])
    assert pairs(divided(make(), train_images=48)["train"]) == pairs(whole["train"])
    for images, reason in ((49, "the training set has 48 images; 0 takes all"), (2, "class 'a'")):
        with pytest.raises(StageError, match=reason):
            divided(make(), train_images=images)


def test_images_are_reordered_in_place():
    x = np.arange(2000).reshape(1000, 2)
    wanted = np.random.default_rng(0).permutation(1000)
    expected = x[wanted]
    reorder(x, wanted)
    assert np.array_equal(x, expected)


@pytest.mark.parametrize(
    ("rare", "fraction"), [(None, 0.01), (None, 0.99), (np.arange(60) == 7, 0.2)]
)
def test_a_class_too_small_for_the_split_is_named(rare, fraction):
    y = WHOLE.y_train if rare is None else np.where(rare, 2, WHOLE.y_train % 2)
    dataset = Dataset(WHOLE.x_train, y, WHOLE.x_test, WHOLE.y_test, WHOLE.class_names)
    name, count = (".", 20) if rare is None else ("c", 1)
    said = rf"class '{name}' has too few training images \({count}\) .*val_fraction={fraction}"
    with pytest.raises(StageError, match=said):
        divided(dataset, val_fraction=fraction)


@pytest.mark.parametrize("side", [(9, 12, 3), (3, 9, 12, 3)], ids=["images", "sequences"])
def test_the_stage_stores_and_prints_exactly_the_loaded_data(
    tiny_document, make_npz, tmp_path, monkeypatch, capsys, side
):
    own = make_npz({"class_names": np.array(["ä", "<b>", "c d"])}, side=side)
    document = set_keys(tiny_document, {"dataset": own.name, "prepare.val_fraction": 0.2})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prepare.main()
    printed = capsys.readouterr().out
    manifest = read_manifest()
    assert manifest["dataset"] == own.name
    assert manifest["image_shape"] == [*side]
    assert manifest["class_names"] == ["ä", "<b>", "c d"]
    assert [manifest["splits"][part]["images"] for part in ("train", "val", "test")] == [48, 12, 30]
    for part, facts in manifest["splits"].items():
        data = read_split(part)
        assert facts["per_class"] == np.bincount(data.y).tolist()
        assert facts["x_sha256"] == array_digest(data.x)
        assert facts["y_sha256"] == array_digest(data.y)
        assert facts["x_sha256"][:16] in printed
    assert "9×12×3, 3 classes" in printed
    assert f"DVC does not track {own.name}: move it to data/raw/" in printed
    with np.load(own) as arrays:
        stored = read_split("test")
        assert pairs((stored.x, stored.y)) == pairs((arrays["x_test"], arrays["y_test"]))
    assert manifest["notes"] == list(load(own).notes)
    assert set(manifest["checks"]["messages"]) <= {
        line.removeprefix("  check: ") for line in printed.splitlines()
    }
    train, sheet = read_split("train"), np.load(PREPARED / "contact_sheet.npy")
    assert sheet.shape == (3, 12, *side)
    for row, label in zip(sheet, range(3), strict=True):
        assert np.array_equal(row, train.x[train.y == label][:12])

    first = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    (PREPARED / "stale.npy").write_bytes(b"old")
    prepare.main()
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == first
    assert names(PREPARED.parent) == ["prepared"], "no temporary folder is left"


def test_test_images_in_the_training_set_give_a_last_prominent_line(
    tiny_document, make_npz, tmp_path, monkeypatch, capsys
):
    arrays = tiny_arrays()
    data = make_npz({"x_test": arrays["x_train"][:30], "y_test": arrays["y_train"][:30]})
    document = set_keys(tiny_document, {"dataset": data.name})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prepare.main()
    *_, last = capsys.readouterr().out.splitlines()
    found = read_manifest()["checks"]["duplicates"]["train_test"]
    assert 20 < found < 30
    assert last.startswith(f"warning: {found} of 30 test images are also in the training set; ")
