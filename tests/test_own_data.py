"""A user's own arrays: what is loaded is what the file holds; mistakes are named."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from own_data import ARRAYS, X_TEST, Y_TEST, X, Y, has_note, load, refusal

from stages.datasets.containers import MAX_ARRAYS

ALL_X, ALL_Y = np.concatenate([X, X_TEST]), np.concatenate([Y, Y_TEST])
COLOUR = np.stack([X, X // 2, X // 4], axis=-1)
ORDER = np.arange(60)


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def with_test(**train: np.ndarray) -> dict[str, np.ndarray]:
    return {"x_train": X, "y_train": Y, "x_test": X_TEST, "y_test": Y_TEST} | train


@pytest.mark.parametrize("side", [(12, 12), (9, 7), (12, 8, 1), (6, 9, 3), (6, 9, 4), (3, 8, 9, 1)])
def test_images_of_any_size_are_loaded(make_npz, side):
    path = make_npz({"y_test": Y_TEST[:, None]}, side=side)  # labels may be a column
    dataset = load(path)
    with np.load(path) as arrays:
        assert dataset.x_train.shape == (60, *side, *([1] if len(side) == 2 else []))
        assert np.array_equal(dataset.x_train.ravel(), arrays["x_train"].ravel())
        assert np.array_equal(dataset.y_test, arrays["y_test"].ravel())
    assert (dataset.x_test.dtype, dataset.y_test.dtype) == (np.uint8, np.int32)
    assert (dataset.class_names, dataset.notes) == (("0", "1", "2"), ())


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("x_train y_train x_test y_test", "train test"),
        ("X_train Y_train X_test Y_test", "train test"),
        ("train_images train_labels test_images test_labels val_images val_labels",
         "train test val"),
        ("x_train y_train", "train"), ("x y", "train"), ("images labels", "train"),
    ],
)  # fmt: skip
def test_arrays_are_found_by_the_usual_names(tmp_path, names, parts):
    arrays = {name: Y if i % 2 else X for i, name in enumerate(names.split())}
    dataset = load(write(tmp_path / "a.npz", **arrays, extra=X[:2]))
    for part in ("train", "test", "val"):
        images = getattr(dataset, f"x_{part}")
        assert (images is not None) == (part in parts.split())
        assert images is None or np.array_equal(images[..., 0], X)
    assert has_note(dataset, "not used: extra")
    assert has_note(dataset, "validation set") == ("val" in parts)


def idx(array: np.ndarray) -> bytes:
    kind, dtype = (8, ">u1") if array.dtype == np.uint8 else (12, ">i4")
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + shape + array.astype(dtype).tobytes()


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
          "t10k-labels-idx1-ubyte"), ""),
        (("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte",
          "emnist-letters-test-images-idx3-ubyte", "emnist-letters-test-labels-idx1-ubyte"), ".gz"),
        (("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int",
          "qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"), ".gz"),
        (("kmnist-train-imgs", "kmnist-train-labels", "kmnist-test-imgs", "kmnist-test-labels"),
         ".npz"),
        (("x_train", "y_train", "x_test", "y_test"), ".npy"),
    ],
)  # fmt: skip
def test_folders_of_array_files_are_read(tmp_path, names, suffix):
    for name, given in zip(names, with_test().values(), strict=True):
        array = given.astype(np.uint8)
        if "idx2" in name:  # the label, then other facts
            array = np.stack([given.astype(np.int32), *[np.arange(len(given)) * 7] * 7], axis=1)
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".npz":
            np.savez(path, array)
        elif suffix == ".npy":
            np.save(path, array)
        else:
            path.write_bytes(gzip.compress(idx(array)) if suffix else idx(array))
    (tmp_path / "readme.txt").write_text("about the data", encoding="utf-8")
    for path in (tmp_path, tmp_path / f"{names[0]}{suffix}"):
        dataset = load(path)
        assert np.array_equal(dataset.x_train[..., 0], X)
        assert np.array_equal(dataset.y_test, Y_TEST)
        assert has_note(dataset, "prepare.transpose=true") == ("emnist" in names[0])
    turned = load(tmp_path, transpose=True)
    assert np.array_equal(turned.x_test[..., 0], X_TEST.swapaxes(1, 2))
    assert has_note(turned, "rows and columns were swapped")
    if "letters" in names[0]:
        (tmp_path / "emnist-digits-train-images-idx3-ubyte").write_bytes(idx(X))
        refusal(tmp_path, "holds two datasets")


FLOAT = X.astype(np.float32)
LEVELS = np.arange(60 * 144).reshape(60, 12, 12) % 256


@pytest.mark.parametrize(
    ("given", "wanted", "note", "settings"),
    [
        (LEVELS > 99, (LEVELS > 99) * 255, "values of 0 to 1 (bool) became 0 to 255", {}),
        ((LEVELS > 99).astype(np.uint8), (LEVELS > 99) * 255, "0 to 1 (uint8)", {}),
        (LEVELS.astype(np.uint16) * 257, LEVELS, "0 to 65535 (uint16)", {}),
        (LEVELS.astype(np.int64), LEVELS, "", {}),
        (LEVELS.astype(np.float64), LEVELS, "", {}),
        ((LEVELS / 255).astype(np.float32), LEVELS, "0 to 1 (float32)", {}),
        ((LEVELS / 255).astype(np.float16), LEVELS, "0 to 1 (float16)", {}),
        (LEVELS / 127.5 - 1, LEVELS, "-1 to 1 (float64)", {}),
        (LEVELS * 0.999, LEVELS * 0.999, "rounded to whole numbers", {}),
        (LEVELS * 16, LEVELS * 16 / 4095 * 255, "0 to 4095", {"white": 4095}),
        (LEVELS // 16, LEVELS // 16 * 17, "0 to 15", {"white": 15}),
        (LEVELS // 16, LEVELS // 16, "warning: the largest value of the images is 15", {}),
        (LEVELS.reshape(60, -1), LEVELS, "144 values per image became 12×12 pixels", {}),
        (LEVELS.reshape(60, -1, 1), LEVELS, "144 values per image became 12×12 pixels", {}),
        (LEVELS.reshape(60, 1, -1), LEVELS, "144 values per image became 12×12 pixels", {}),
        (LEVELS[:, None], LEVELS, "channels came first", {}),
        (np.asfortranarray(LEVELS.astype(np.uint8)), LEVELS, "", {}),
    ],
)  # fmt: skip
def test_values_and_axes_are_converted_and_reported(tmp_path, given, wanted, note, settings):
    dataset = load(write(tmp_path / "a.npz", x=given, y=Y), **settings)
    assert dataset.x_train.shape == (60, 12, 12, 1)
    assert np.array_equal(dataset.x_train[..., 0], np.rint(wanted).astype(np.uint8))
    assert dataset.x_train.flags.writeable
    assert has_note(dataset, note) if note else dataset.notes == ()


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (COLOUR, {}), (COLOUR.transpose(0, 3, 1, 2), {}),
        (COLOUR.reshape(60, -1), {"channels": "last"}),
        (COLOUR.transpose(0, 3, 1, 2).reshape(60, -1), {"channels": "first"}),
    ],
)  # fmt: skip
def test_colours_are_found_on_either_side(tmp_path, given, settings):
    assert np.array_equal(load(write(tmp_path / "a.npz", x=given, y=Y), **settings).x_train, COLOUR)


def test_images_and_sequences_are_resized(tmp_path):
    steps = np.stack([COLOUR, COLOUR], axis=1)
    half = COLOUR.reshape(60, 6, 2, 6, 2, 3).mean(axis=(2, 4))
    for given in (COLOUR, steps):
        dataset = load(write(tmp_path / "a.npz", x=given, y=Y), image_size=6)
        assert dataset.x_train.shape == (*given.shape[:-3], 6, 6, 3)
        near = np.abs(dataset.x_train.reshape(60, -1, 6, 6, 3) - half[:, None])
        assert near.mean() < 25
        assert has_note(dataset, "12×12 pixels were resized to 6×6")


@pytest.mark.parametrize(
    ("given", "names", "note"),
    [
        (Y.astype(np.uint8), "0 1 2", ""), (Y.astype(float), "0 1 2", ""),
        (np.eye(3)[Y], "0 1 2", "one-hot labels of 3 classes"),
        (Y + 1, "1 2 3", "labels 1–3 became classes 0–2, named after the labels"),
        (Y * 5, "0 5 10", "labels 0, 5, 10 became classes 0–2"),
        (Y - 1, "-1 0 1", "labels -1–1 became"),
        (np.array(["Kühe", "cat", " dog"])[Y], "Kühe cat dog", "labels 'Kühe', 'cat', 'dog'"),
        (np.array([b"a", b"b", b"c"])[Y], "a b c", "named after the labels"),
        (np.array(["2", "10", "100"])[Y], "2 10 100", "labels '2', '10', '100'"),
    ],
)  # fmt: skip
def test_labels_become_classes_named_after_them(tmp_path, given, names, note):
    dataset = load(write(tmp_path / "a.npz", x=X, y=given))
    assert np.array_equal(dataset.y_train, Y)
    assert dataset.y_train.dtype == np.int32
    assert dataset.class_names == tuple(names.split())
    assert has_note(dataset, note) if note else dataset.notes == ()


def test_class_names_may_be_text_bytes_or_numbers(make_npz):
    for given in (["cat", "dog", "Kühe"], [b"a", b"b", b"c"], [3, 5, 8], ["👩\u200d🔬", "b", "c"]):
        names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in given)
        assert load(make_npz({"class_names": np.array(given)})).class_names == names
    from_one = make_npz({"class_names": np.array(list("abc")), "y_train": Y + 1,
                         "y_test": Y_TEST + 1})  # fmt: skip
    assert np.array_equal(load(from_one).y_train, Y)


PRINTABLE, NO_TEXT = "should have printable characters only", "should contain text only"
BAD_NAMES = [
    (np.array(["cat", "dog", "cat"]), "two classes are named 'cat'"),
    *((np.array(["cat", "dog", bad]), PRINTABLE) for bad in ("a\nb", "\u202egod")),
    (np.array(["cat", "dog", " "]), "a class name is empty"),
    (np.array(["", "", ""]), "a class name is empty"),
    (np.array(["cat", "dog", "x" * 201]), "more than 200 characters"),
    (np.array([1.0, 2.0, 3.0]), "should be a list of strings"),
    (np.array(["a"] * 61), "should be a list of strings, one for each class"),
    (np.array([b"a", b"b", b"\xff"]), NO_TEXT),
    (np.array([97, 98, 2**31], np.uint32).view("<U1"), NO_TEXT),
    (np.array([97, 98, 0xD800], np.uint32).view("<U1"), PRINTABLE),
    (np.array(["a", "b", None], object), "holds Python objects"),
    (np.array(["cat", "dog"]), "2 classes are named, but the labels go from 0 to 2"),
    (np.array(list("abcd")), "class 'd' has no training image"),
]
NAN = np.where(ORDER[:, None, None] == 7, np.nan, FLOAT)
BAD_ARRAYS = [
    ({"y_train": None}, "has 'x_train', but no labels for it (such as 'y_train')"),
    ({"x_test": None}, "has 'y_test', but no images for it"),
    ({"x_train": None, "y_train": None}, "has no training images"),
    ({"train_images": X}, "has two arrays for the same data: 'x_train' and 'train_images'"),
    ({"x": X, "y": Y}, "holds two layouts: one array for all parts ('x')"),
    ({"y_train": Y[:-1]}, "y_train has 59 labels, x_train has 60 images"),
    ({"y_test": np.append(Y_TEST, 0)}, "y_test has 31 labels, x_test has 30 images"),
    ({"y_test": Y_TEST + 1}, "class '3' has no training image"),
    ({"y_train": Y * 0, "y_test": Y_TEST * 0}, "the labels have only one class"),
    ({"y_train": Y + 0.5}, "label 0 (from 0) is"),
    ({"y_train": np.where(ORDER == 7, np.nan, Y)}, "label 7 (from 0) is nan"),
    ({"y_train": np.eye(3, dtype=int)[Y] * 2}, "row 0 (from 0) does not have a single 1"),
    ({"y_train": Y.astype(str)}, "text in one part and numbers in another"),
    ({"y_train": Y.astype("m8[s]")}, "expected one label per image"),
    ({"y_train": np.array(["a", None] * 30, object)}, "text labels dtype=str"),
    ({"x_train": NAN}, "x_train: image 7 (from 0) has a value that is not a number"),
    *(({"x_train": x}, "which fits no known scale") for x in (
        X.astype(int) - 9, (FLOAT - 70) / 30, X.astype(int) * 1000)),
    ({"x_train": FLOAT / 9, "x_test": X_TEST / 9}, "which fits no known scale"),
    ({"x_train": FLOAT / 9}, "differ in scale: x_train goes to"),
    ({"x_train": LEVELS * 16, "x_test": X_TEST * 16}, "4095 (12 bits) or 65535 (16 bits)"),
    ({"x_train": FLOAT / 255}, "x_train goes to"),
    ({"x_train": X.astype("m8[s]")}, "should hold numbers"),
    ({"x_train": np.zeros((60, 8, 8, 2), np.uint8)}, "no axis has the length 1, 3 or 4"),
    ({"x_train": np.zeros((60, 3, 8, 3), np.uint8)}, "set prepare.channels=first or last"),
    ({"x_train": COLOUR.reshape(60, -1)}, "set prepare.channels=first or last"),
    ({"x_train": X[:, :11].reshape(60, -1)}, "132 values per image are not a square picture"),
    *(({"x_train": x}, f"x_train has the shape {x.shape}")
      for x in (np.zeros((60, 0, 12), np.uint8), np.zeros(60, np.uint8), np.uint8(3))),
    ({"x_test": X_TEST[:, :-1]}, "(12, 12, 1) in x_train, (11, 12, 1) in x_test"),
    ({"x_train": np.array([X[0], X[0, 1:]], object)}, "all images need one size"),
    *(({"class_names": class_names}, reason) for class_names, reason in BAD_NAMES),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), BAD_ARRAYS)
def test_bad_arrays_are_refused(make_npz, changes, reason):
    refusal(make_npz(changes), reason)


def test_a_file_or_folder_that_is_no_dataset_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.pkl", b"\x80\x04\0."), ("a.zip", b"PK\x03\x04"), ("e.csv", b"")):
        Path(name).write_bytes(content)
    Path("empty").mkdir()
    Path("mixed").mkdir()
    for name in ("mixed/a.csv", "mixed/x_train.npy"):
        Path(name).write_bytes(b"\x93NUMPY")
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/b.npz.dvc").touch()
    for name, reason in (
        ("a.pkl", "unknown format; use an .npz file"), ("a.zip", "is damaged or cut off"),
        ("e.csv", "is empty"), ("empty", "holds no data; use"), ("none.npz", "does not exist"),
        ("mixed", "holds two layouts"), ("data/raw/a.npz", "`dvc add data/raw/a.npz`"),
        ("data/raw/b.npz", "`dvc pull data/raw/b.npz`"),
    ):  # fmt: skip
        refusal(Path(name), reason)


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


def test_the_arrays_of_the_fixture_are_those_of_this_file(make_npz):
    assert np.array_equal(load(make_npz()).x_train[..., 0], ARRAYS["x_train"])
