"""The split is stratified, complete and repeatable; the stage stores exactly the loaded data."""

from __future__ import annotations

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
def test_the_split_is_stratified_and_loses_no_image(fraction):
    parts = split(WHOLE, fraction, split_seed=3)
    labels = dict(zip((i.tobytes() for i in WHOLE.x_train), WHOLE.y_train, strict=True))
    for part, share in (("val", fraction), ("train", 1 - fraction)):
        x, y = parts[part]
        assert np.bincount(y).tolist() == [20 * share] * 3
        assert [labels.pop(image.tobytes()) for image in x] == y.tolist()
    assert labels == {}
    assert parts["test"][0] is WHOLE.x_test


def test_the_split_depends_on_its_seed():
    first, again, other = (split(WHOLE, 0.2, seed)["val"][0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("rare", "fraction"), [(None, 0.01), (None, 0.99), (np.arange(60) == 7, 0.2)]
)
def test_a_class_too_small_for_the_split_is_named(rare, fraction):
    y = WHOLE.y_train if rare is None else np.where(rare, 2, WHOLE.y_train % 2)
    dataset = Dataset(WHOLE.x_train, y, WHOLE.x_test, WHOLE.y_test, WHOLE.class_names)
    name, count = (".", 20) if rare is None else ("c", 1)
    said = rf"class '{name}' has too few training images \({count}\) .*val_fraction={fraction}"
    with pytest.raises(StageError, match=said):
        split(dataset, fraction, split_seed=1)


def test_the_stage_stores_and_prints_exactly_the_loaded_data(
    tiny_document, make_npz, tmp_path, monkeypatch, capsys
):
    own = make_npz({"class_names": np.array(["ä", "<b>", "c d"])}, side=(9, 12, 3))
    document = set_keys(tiny_document, {"dataset": own.name, "prepare.val_fraction": 0.2})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    prepare.main()
    printed = capsys.readouterr().out
    manifest = read_manifest()
    assert manifest["dataset"] == own.name
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
    with np.load(own) as arrays:
        assert np.array_equal(read_split("test").x, arrays["x_test"])

    first = {path.name: path.read_bytes() for path in PREPARED.iterdir()}
    (PREPARED / "stale.npy").write_bytes(b"old")
    prepare.main()
    assert {path.name: path.read_bytes() for path in PREPARED.iterdir()} == first
    assert names(PREPARED.parent) == ["prepared"], "no temporary folder is left"
