"""A user's own `.npz`: what is loaded is what the file holds; mistakes are named."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from conftest import tiny_arrays

from stages.common.cli import StageError
from stages.datasets.catalog import load_dataset
from stages.datasets.containers import MAX_ARRAYS
from stages.datasets.own_data import load_npz

ARRAYS = tiny_arrays()
X, Y, Y_TEST = (ARRAYS[key] for key in ("x_train", "y_train", "y_test"))


@pytest.mark.parametrize("side", [(12, 12), (9, 7), (12, 8, 1), (6, 9, 3)])
def test_images_of_any_size_are_loaded(make_npz, side):
    path = make_npz({"y_test": Y_TEST[:, None]}, side=side)  # labels may be a column
    dataset = load_dataset(str(path))
    with np.load(path) as arrays:
        assert dataset.x_train.shape == (60, *side, *([1] if len(side) == 2 else []))
        assert np.array_equal(dataset.x_train.ravel(), arrays["x_train"].ravel())
        assert np.array_equal(dataset.y_test, arrays["y_test"].ravel())
    assert (dataset.x_test.dtype, dataset.y_test.dtype) == (np.uint8, np.int32)
    assert dataset.class_names == ("0", "1", "2")


def test_class_names_may_be_text_bytes_or_numbers(make_npz):
    for given in (["cat", "dog", "Kühe"], [b"a", b"b", b"c"], [3, 5, 8], ["👩\u200d🔬", "b", "c"]):
        found = load_npz(make_npz({"class_names": np.array(given)})).class_names
        assert found == tuple(n.decode() if isinstance(n, bytes) else str(n) for n in given)


WHOLE_NUMBERS, LIST = "whole numbers from 0 to 255", "should be a list of whole numbers"
PRINTABLE, NO_TEXT = "should have printable characters only", "must contain text only"
BAD_NAMES = [
    (np.array(["cat", "dog", "cat"]), "two classes are named 'cat'"),
    *((np.array(["cat", "dog", bad]), PRINTABLE) for bad in (" ", "a\nb", "\u202egod")),
    (np.array(["", "", ""]), PRINTABLE),
    (np.array(["cat", "dog", "x" * 201]), "more than 200 characters"),
    (np.array([1.0, 2.0, 3.0]), "should be a list of text"),
    (np.array(["a"] * 61), "should be a list of text, one for each label"),
    (np.array([b"a", b"b", b"\xff"]), NO_TEXT),
    (np.array([97, 98, 2**31], np.uint32).view("<U1"), NO_TEXT),
    (np.array([97, 98, 0xD800], np.uint32).view("<U1"), PRINTABLE),
    (np.array(["a", "b", None], object), "holds Python objects"),
    (np.array(["cat", "dog"]), "2 classes are named, but the labels go up to 2"),
    (np.array(list("abcd")), "class 'd' has no training image"),
]
BAD_ARRAYS = [
    ({"y_train": None}, "has no array 'y_train'"),
    ({"x_test": None}, "has no array 'x_test'"),
    ({"y_train": Y[:-1]}, "x_train has 60 images, y_train 59 labels"),
    ({"y_test": np.append(Y_TEST, 0)}, "x_test has 30 images, y_test 31 labels"),
    ({"y_train": Y - 1}, "y_train goes from -1 to 1"),
    ({"y_test": Y_TEST + 1000}, "y_test goes from 1000 to 1002"),
    ({"y_train": np.where(Y == 1, 0, Y)}, "class '1' has no training image"),
    ({"y_test": Y_TEST + 1}, "class '3' has no training image"),
    ({"y_train": Y * 0, "y_test": Y_TEST * 0}, "the labels have only one class"),
    *(({"y_train": y}, LIST)
      for y in (Y.astype(float), np.eye(3, dtype=int)[Y], Y.astype("m8[s]"))),
    *(({"x_train": x}, WHOLE_NUMBERS)
      for x in (X / 255, X.astype(int) + 100, X.astype(int) - 1, X.astype("m8[s]"))),
    *(({"x_train": x}, f"x_train has the shape {x.shape}") for x in (
        X.reshape(60, -1), np.zeros((60, 8, 8, 2), np.uint8), np.zeros((0, 12, 12), np.uint8),
    )),
    ({"x_test": ARRAYS["x_test"][:, :-1]}, "(12, 12, 1) in x_train, (11, 12, 1) in x_test"),
    ({"x_train": np.array([X[0], X[0, 1:]], object)}, "all images need one size"),
    *(({"class_names": class_names}, reason) for class_names, reason in BAD_NAMES),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), BAD_ARRAYS)
def test_bad_arrays_are_refused(make_npz, changes, reason):
    path = make_npz(changes)
    with pytest.raises(StageError, match=re.escape(reason)) as refusal:
        load_npz(path)
    assert str(refusal.value).startswith(str(path))


@pytest.mark.slow
def test_the_largest_allowed_file_is_prepared_within_2_gb(project, tmp_path):
    n = (MAX_ARRAYS - 2**20) // (1000 * 1000)
    x = np.zeros((n - 2, 1000, 1000), np.uint8, order="F")
    y = np.arange(n - 2) % 2
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    project.set({"dataset": str(tmp_path / "a.npz")})
    script = (
        "import resource; from stages import prepare; prepare.main();"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = project.run(sys.executable, "-c", script)
    assert int(done.stdout.split("peak")[1]) * 1024 < 2 * 2**30
