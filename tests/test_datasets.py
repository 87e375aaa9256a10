"""Raw data: what is loaded is what was published, or what the user's file holds."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import struct
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pytest
from conftest import names, tiny_arrays

from stages import datasets
from stages.datasets import (
    REMOTES,
    Remote,
    array_digest,
    as_mnist,
    download,
    load_dataset,
    load_npz,
    load_remote,
    read_idx,
    read_npz,
)
from stages.files import StageError


def refused(call: Callable[[], object]) -> str:
    """Return the one line with which a call refuses its input."""
    with pytest.raises(StageError) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# --- digests, IDX -------------------------------------------------------------------------


def test_a_digest_is_of_the_bytes_in_c_order():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = "17e88db187afd62c16e5debf3e6527cd006bc012bc90b51a810cd80c2d511f43"  # sha256sum
    assert array_digest(array) == expected
    assert array_digest(np.asfortranarray(array)) == expected
    assert array_digest(array.T) != expected


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def idx(array: np.ndarray, kind: int = 8, extra: bytes = b"") -> bytes:
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzipped(header + array.tobytes() + extra)


def test_idx_comes_back_as_it_was(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(idx(images))
    assert np.array_equal(read_idx(tmp_path / "images.gz"), images)
    (tmp_path / "labels.gz").write_bytes(idx(images[:, 0, 0]))
    assert np.array_equal(read_idx(tmp_path / "labels.gz"), images[:, 0, 0])


LABELS = np.arange(9, dtype=np.uint8)


BAD_IDX = {
    "cut at the end": (idx(LABELS)[:-12], "damaged or cut short"),
    "cut at the start": (idx(LABELS)[:12], "damaged or cut short"),
    "empty": (b"", "damaged or cut short"),
    "not packed": (b"not gzip at all", "damaged or cut short"),
    "half a header": (gzipped(b"\0\0"), "damaged or cut short"),
    "too few labels": (gzipped(b"\0\0\x08\x01\0\0\0\x09" + bytes(8)), "does not hold the 9 bytes"),
    "too many labels": (idx(LABELS, extra=b"\0"), "does not hold the 9 bytes"),
    "other numbers": (idx(LABELS, kind=9), "not an IDX file of bytes"),
    "two axes": (idx(LABELS.reshape(3, 3)), "not an IDX file of bytes"),
    "as large as can be": (gzipped(b"\0\0\x08\x03" + b"\xff" * 12), "the limit is"),
    "no image, large": (gzipped(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8), "array is too big"),
}


@pytest.mark.parametrize(("content", "said"), BAD_IDX.values(), ids=BAD_IDX.keys())
def test_bad_idx_is_refused(tmp_path, content, said):
    (tmp_path / "labels.gz").write_bytes(content)
    assert said in refused(lambda: read_idx(tmp_path / "labels.gz"))


# --- a user's own arrays ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "shape"),
    [
        ((12, 12), (12, 12, 1)),
        ((9, 7), (9, 7, 1)),
        ((12, 8, 1), (12, 8, 1)),
        ((6, 9, 3), (6, 9, 3)),
    ],
)
def test_own_images_of_any_size_are_loaded(make_npz, side, shape):
    path = make_npz(side=side)
    dataset = load_dataset(str(path))
    with np.load(path) as arrays:
        assert dataset.x_train.shape == (60, *shape)
        assert np.array_equal(dataset.x_train.ravel(), arrays["x_train"].ravel())
        assert np.array_equal(dataset.y_test, arrays["y_test"])
    assert dataset.x_test.dtype == np.uint8
    assert dataset.y_train.dtype == np.int32
    assert dataset.class_names == ("0", "1", "2")


def test_own_class_names_are_used(make_npz):
    path = make_npz({"class_names": np.array(["cat", "dog", "Kühe"])})
    assert load_npz(path).class_names == ("cat", "dog", "Kühe")


def test_labels_in_a_column_are_labels(make_npz):
    column = tiny_arrays()["y_train"][:, None]
    assert np.array_equal(load_npz(make_npz({"y_train": column})).y_train, column[:, 0])


ARRAYS = tiny_arrays()
NO_CLASS_1 = np.where(ARRAYS["y_train"] == 1, 0, ARRAYS["y_train"])
BAD_ARRAYS = [
    ({"y_train": None}, "has no array 'y_train'"),
    ({"x_test": None}, "has no array 'x_test'"),
    ({"y_train": ARRAYS["y_train"][:-1]}, "x_train has 60 images, y_train 59 labels"),
    ({"y_test": np.append(ARRAYS["y_test"], 0)}, "x_test has 30 images, y_test 31 labels"),
    ({"y_train": ARRAYS["y_train"] - 1}, "y_train goes from -1 to 1"),
    ({"y_test": ARRAYS["y_test"] + 1000}, "y_test goes from 1000 to 1002"),
    ({"y_train": NO_CLASS_1}, "class '1' has no training image"),
    ({"y_test": ARRAYS["y_test"] + 1}, "class '3' has no training image"),
    ({"y_train": ARRAYS["y_train"].astype(float)}, "should be a list of whole numbers"),
    ({"y_train": np.eye(3, dtype=int)[ARRAYS["y_train"]]}, "should be a list of whole numbers"),
    ({"y_train": ARRAYS["y_train"] * 0, "y_test": ARRAYS["y_test"] * 0}, "a single class"),
    ({"x_train": ARRAYS["x_train"] / 255}, "whole numbers from 0 to 255"),
    ({"x_train": ARRAYS["x_train"].astype(int) + 100}, "whole numbers from 0 to 255"),
    ({"x_train": ARRAYS["x_train"].astype(int) - 1}, "whole numbers from 0 to 255"),
    ({"x_train": ARRAYS["x_train"].reshape(60, -1)}, "has the shape (60, 144)"),
    ({"x_train": np.zeros((60, 8, 8, 2), np.uint8)}, "has the shape (60, 8, 8, 2)"),
    ({"x_test": ARRAYS["x_test"][:, :-1]}, "(12, 12, 1) in x_train, (11, 12, 1) in x_test"),
    ({"x_train": np.zeros((0, 12, 12), np.uint8)}, "has the shape (0, 12, 12)"),
    ({"class_names": np.array(["cat", "dog"])}, "2 classes are named, but the labels go up to 2"),
    ({"class_names": np.array(list("abcd"))}, "class 'd' has no training image"),
    ({"x_train": np.array([np.zeros((2, 2)), np.zeros((3, 2))], object)}, "images must share one"),
    ({"class_names": np.array(["a", "b", None], object)}, "holds Python objects"),
]


@pytest.mark.parametrize(("changes", "said"), BAD_ARRAYS, ids=[said for _, said in BAD_ARRAYS])
def test_bad_arrays_are_refused(make_npz, changes, said):
    path = make_npz(changes)
    text = refused(lambda: load_npz(path))
    assert said in text
    assert str(path) in text


class _Trap:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "sprung"),))


def test_a_pickle_is_refused_and_not_run(make_npz, tmp_path):
    path = make_npz({"x_train": np.array([_Trap(tmp_path)] * 60, object)})
    assert "holds Python objects" in refused(lambda: load_npz(path))
    assert "sprung" not in names(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_an_npz_that_was_cut_short_is_refused(make_npz, keep):
    path = make_npz()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "damaged or cut short" in refused(lambda: load_npz(path))


def test_an_npz_with_a_flipped_byte_is_refused(make_npz):
    path = make_npz()
    content = bytearray(path.read_bytes())
    content[500] ^= 0xFF
    path.write_bytes(content)
    assert str(path) in refused(lambda: load_npz(path))


def test_an_array_with_a_false_header_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros(8, np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", file.getvalue()[:-3])
    assert "is cut short" in refused(lambda: read_npz(tmp_path / "a.npz", ("x",)))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    assert "is not an array" in refused(lambda: read_npz(tmp_path / "b.npz", ("x",)))


def test_a_zip_bomb_is_refused_unpacked(make_npz, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_ARRAYS", 1000)
    assert "unpacks to more than 1000 bytes" in refused(lambda: load_npz(make_npz()))


def packed(arrays: dict[str, bytes], packing: int = 0, **claims: int) -> bytes:
    """Return a ZIP archive of `.npy` members, whose sizes it may state wrongly."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
        for info in archive.filelist:
            info.file_size = claims.get(info.filename[:-4], info.file_size)
    return file.getvalue()


def stored(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_member_that_unpacks_to_more_than_it_claims_is_not_unpacked_as_a_whole(tmp_path):
    bomb = stored(np.zeros(2**28, np.uint8))
    (tmp_path / "a.npz").write_bytes(packed({"x": bomb}, zipfile.ZIP_DEFLATED, x=1000))
    tracemalloc.start()
    assert str(tmp_path) in refused(lambda: read_npz(tmp_path / "a.npz", ("x",)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_numpy_never_uses_is_refused(tmp_path, packing):
    (tmp_path / "a.npz").write_bytes(packed({"x": stored(np.zeros(3))}, packing))
    assert "packed in a way NumPy never does" in refused(
        lambda: read_npz(tmp_path / "a.npz", ("x",))
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_either_order_come_back_as_they_were(tmp_path, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), order=order)
    np.savez_compressed(tmp_path / "a.npz", x=array)
    assert np.array_equal(read_npz(tmp_path / "a.npz", ("x",))["x"], array)


BAD_NAMES = [
    (np.array(["cat", "dog", "cat"]), "two classes are named 'cat'"),
    (np.array(["cat", "dog", " "]), "should be characters that print"),
    (np.array(["cat", "dog", "a\nb"]), "should be characters that print"),
    (np.array(["cat", "dog", "\u202egod"]), "should be characters that print"),
    (np.array(["cat", "dog", "x" * 201]), "more than 200 characters"),
    (np.array(["", "", ""]), "should be characters that print"),
    (np.array([1.0, 2.0, 3.0]), "should be a list of text"),
    (np.array(["a"] * 61), "should be a list of text, one for each label"),
    (np.array([b"a", b"b", b"\xff"]), "holds what is not text"),
    (np.array([97, 98, 2**31], np.uint32).view("<U1"), "holds what is not text"),
    (np.array([97, 98, 0xD800], np.uint32).view("<U1"), "should be characters that print"),
]


@pytest.mark.parametrize(("class_names", "said"), BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_class_names_that_cannot_be_shown_are_refused(make_npz, class_names, said):
    path = make_npz({"class_names": class_names})
    text = refused(lambda: load_npz(path))
    assert said in text


def test_class_names_may_be_bytes_numbers_or_need_joiners(make_npz):
    for given, expected in (
        ([b"cat", b"dog", b"cow"], ("cat", "dog", "cow")),
        ([3, 5, 8], ("3", "5", "8")),
        (["می\u200cخواهم", "👩\u200d🔬", "c"], ("می\u200cخواهم", "👩\u200d🔬", "c")),
    ):
        assert load_npz(make_npz({"class_names": np.array(given)})).class_names == expected


def test_times_are_no_labels_and_no_pixels(make_npz):
    for key in ("y_train", "x_train"):
        assert key in refused(
            lambda key=key: load_npz(make_npz({key: ARRAYS[key].astype("m8[s]")}))
        )


def test_a_path_with_line_breaks_is_one_line(tmp_path):
    assert "a\\nb.npz" in refused(lambda: load_npz(tmp_path / "a\nb.npz"))
    assert "damaged" in refused(lambda: load_npz(tmp_path / "a\0b.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_largest_file_that_is_allowed_is_prepared_within_2_gb(project, tmp_path, order):
    """The limit on the arrays leaves room for splitting them, whatever their order."""
    n = (datasets.MAX_ARRAYS - 2**20) // (1000 * 1000)
    x = np.zeros((n - 2, 1000, 1000), np.uint8, order=order)
    y = np.arange(n - 2) % 2
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    project.set({"dataset": str(tmp_path / "a.npz")})
    script = (
        "import resource; from stages import prepare; prepare.main();"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = project.run(sys.executable, "-c", script)
    assert int(done.stdout.split("peak")[1]) * 1024 < 2 * 2**30


def test_a_missing_file_is_named(tmp_path):
    assert "none.npz does not exist" in refused(lambda: load_npz(tmp_path / "none.npz"))


# --- digits -------------------------------------------------------------------------------


def test_digits_are_sklearns_in_mnists_format():
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert dataset.x_train.shape == (1437, 28, 28, 1)
    assert dataset.x_test.shape == (360, 28, 28, 1)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.class_names == tuple("0123456789")
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    assert np.array_equal(np.bincount(labels), np.bincount(load_digits().target))
    shares = np.bincount(dataset.y_test) / np.bincount(labels)
    assert np.abs(shares - 360 / 1797).max() < 0.01, "the test split is stratified"


def test_digits_are_the_same_every_time_and_not_in_both_splits():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert array_digest(first.x_train) == array_digest(second.x_train)
    train = {image.tobytes() for image in first.x_train}
    assert not train & {image.tobytes() for image in first.x_test}


def test_digits_fill_mnists_box_and_are_centred_by_mass():
    from scipy.ndimage import center_of_mass

    for image in load_dataset("digits").x_test[:50, ..., 0]:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert np.ptp(rows) < 20
        assert np.ptp(columns) < 20
        assert np.abs(np.array(center_of_mass(image)) - 13.5).max() <= 0.51
        assert image.max() > 200


def test_a_flat_square_stays_flat_when_it_is_scaled():
    image = as_mnist(np.full((8, 8), 255.0))
    assert np.array_equal(image[4:24, 4:24], np.full((20, 20), 255, np.uint8))
    assert image.sum() == 400 * 255


# --- the published data, where their files are at hand ------------------------------------


@pytest.mark.parametrize("name", sorted(REMOTES))
def test_the_published_data_load(name):
    missing = [
        path for path in REMOTES[name].files if not (datasets.cache_folder() / path).exists()
    ]
    if missing:
        pytest.skip(f"{missing[0]} is not in {datasets.cache_folder()} (set KERAS_HOME)")
    dataset = load_dataset(name)
    assert dataset.x_train.shape == (60000, 28, 28, 1)
    assert dataset.x_test.shape == (10000, 28, 28, 1)
    assert np.bincount(dataset.y_test).sum() == 10000
    assert len(dataset.class_names) == np.unique(dataset.y_train).size == 10
    for key, digest in REMOTES[name].sha256.items():
        assert array_digest(getattr(dataset, key).astype(np.uint8)) == digest


def test_the_digests_are_the_published_ones():
    """As DESIGN.md has them; a changed digest is a changed data set."""
    assert {
        (name, key): digest[:8]
        for name, remote in REMOTES.items()
        for key, digest in remote.sha256.items()
    } == {
        ("mnist", "x_train"): "741c9888",
        ("mnist", "y_train"): "1feba77c",
        ("mnist", "x_test"): "6d87418d",
        ("mnist", "y_test"): "ddeff807",
        ("fashion_mnist", "x_train"): "2e487a6c",
        ("fashion_mnist", "y_train"): "657fbd22",
        ("fashion_mnist", "x_test"): "c867c93f",
        ("fashion_mnist", "y_test"): "3d0e6c6e",
    }


# --- downloads ----------------------------------------------------------------------------


class Server:
    """A server on this machine alone; `answers` are taken one a request, the last one repeats."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, int | None]] = []
        self.requests: list[str] = []
        self.redirect = ""
        self.pause = 0.0  # seconds before each byte; 0: all at once
        self.drips_headers = False  # does so for ever
        self.closing = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, body, length = answer
                while outer.drips_headers and not outer.closing:
                    self.wfile.write(b"H")
                    time.sleep(0.02)
                self.send_response(status)
                if outer.redirect:
                    self.send_header("Location", outer.redirect)
                if length != -1:
                    self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                with suppress(ConnectionError):  # the client may have had enough
                    if not outer.pause:
                        self.wfile.write(body)
                    for byte in body if outer.pause else b"":
                        time.sleep(outer.pause)
                        self.wfile.write(bytes([byte]))
                        if outer.closing:
                            break

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.closing = True
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that stands for Keras's; waits between attempts are kept, not slept."""
    running = Server()
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets, "HOST", running.url)
    running.waits = []
    monkeypatch.setattr(datasets, "sleep", running.waits.append)
    yield running
    running.close()


@pytest.fixture
def remote(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """A small published data set, served whole by `server`, and an empty cache."""
    arrays = {
        key: array.astype(np.uint8) if key[0] == "y" else array
        for key, array in tiny_arrays().items()
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    server.answers = [(200, file.getvalue(), None)]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return Remote(
        files={"tiny.npz": "tiny.npz"},
        sha256={key: array_digest(array) for key, array in arrays.items()},
        class_names=("a", "b", "c"),
    )


def asked(server: Server, times: int) -> int:
    """Return how often a server was asked, having waited until it has noted that many."""
    until = time.monotonic() + 10
    while len(server.requests) < times and time.monotonic() < until:
        time.sleep(0.01)
    return len(server.requests)


def cached(tmp_path: Path) -> Path:
    return tmp_path / "keras/datasets/tiny.npz"


def test_what_is_missing_is_downloaded_once(server, remote, tmp_path):
    dataset = load_remote(remote)
    assert np.array_equal(dataset.x_train[..., 0], tiny_arrays()["x_train"])
    assert dataset.y_train.dtype == np.int32
    assert cached(tmp_path).read_bytes() == server.answers[0][1]
    load_remote(remote)
    assert server.requests == ["/tiny.npz"]


def test_gzipped_idx_files_are_downloaded_too(server, monkeypatch, tmp_path):
    arrays = tiny_arrays(per_class=4)
    files = {
        "x_train": "train-images-idx3-ubyte.gz",
        "y_train": "train-labels-idx1-ubyte.gz",
        "x_test": "t10k-images-idx3-ubyte.gz",
        "y_test": "t10k-labels-idx1-ubyte.gz",
    }
    arrays = {key: arrays[key].astype(np.uint8) for key in files}
    server.answers = [(200, idx(array), None) for array in arrays.values()]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    tiny = Remote(
        files={f"folder/{name}": name for name in files.values()},
        sha256={key: array_digest(array) for key, array in arrays.items()},
        class_names=("a", "b", "c"),
    )
    dataset = load_remote(tiny)
    assert server.requests == [f"/{name}" for name in files.values()]
    assert np.array_equal(dataset.y_test, arrays["y_test"])
    assert names(tmp_path / "datasets/folder") == sorted(files.values())


def test_a_server_with_troubles_is_asked_again_after_longer_waits(server, remote, tmp_path):
    whole = server.answers[0]
    server.answers = [(503, b"", None), (200, whole[1][:100], len(whole[1])), whole]
    load_remote(remote)
    assert asked(server, 3) == 3
    assert server.waits == [1, 2]
    assert names(cached(tmp_path).parent) == ["tiny.npz"]


BAD_ANSWERS = [  # answers, requests made, what is said
    ([(503, b"", None)], 3, "answered 503"),
    ([(404, b"gone", None)], 1, "answered 404"),
    ([(200, b"PK\3\4", 5000)], 3, "cut short"),
    ([(200, b"an error page", None)], 1, "is damaged"),
    ([(200, b"", None)], 1, "is damaged"),
]


@pytest.mark.parametrize(("answers", "requests", "said"), BAD_ANSWERS)
def test_a_bad_answer_leaves_nothing_and_says_what_to_do(
    server, remote, tmp_path, answers, requests, said
):
    server.answers = answers
    text = refused(lambda: load_remote(remote))
    assert said in text
    assert f"{server.url}tiny.npz" in text
    assert f"put the file at {cached(tmp_path)} by hand" in text
    assert "dataset=digits" in text
    assert len(server.requests) == requests
    assert names(cached(tmp_path).parent) == []


def test_right_shapes_with_wrong_content_are_refused(server, remote, tmp_path):
    arrays = {key: array.astype(np.uint8) for key, array in tiny_arrays(seed=1).items()}
    file = io.BytesIO()
    np.savez(file, **arrays)
    server.answers = [(200, file.getvalue(), None)]
    assert "is not the published data" in refused(lambda: load_remote(remote))
    assert names(cached(tmp_path).parent) == []


@pytest.mark.parametrize("length", [None, -1])
def test_more_than_the_limit_is_not_kept(server, remote, tmp_path, monkeypatch, length):
    monkeypatch.setattr(datasets, "MAX_DOWNLOAD", 1000)
    server.answers = [(200, server.answers[0][1], length)]
    assert "more than 1000 bytes" in refused(lambda: load_remote(remote))
    assert names(cached(tmp_path).parent) == []


@pytest.mark.parametrize("kind", ["truncated", "wrong content", "empty"])
def test_a_bad_cached_file_is_reported_and_left(server, remote, tmp_path, kind):
    load_remote(remote)
    good = cached(tmp_path).read_bytes()
    if kind == "wrong content":
        np.savez(cached(tmp_path), **tiny_arrays(seed=1))
    else:
        cached(tmp_path).write_bytes(good[: len(good) // 2] if kind == "truncated" else b"")
    bad = cached(tmp_path).read_bytes()
    assert str(cached(tmp_path)) in refused(lambda: load_remote(remote))
    assert cached(tmp_path).read_bytes() == bad
    assert len(server.requests) == 1, "a bad file is not silently downloaded again"


def test_a_length_that_is_no_number_is_none(server, remote, tmp_path):
    server.answers = [(200, server.answers[0][1], "many")]
    load_remote(remote)
    assert names(cached(tmp_path).parent) == ["tiny.npz"]


def test_a_server_that_drips_is_left_at_the_deadline(server, remote, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEADLINE", 0.5)
    server.pause = 0.05  # seconds between bytes: the whole file would take minutes
    started = time.monotonic()
    assert "not done after 0.5 s" in refused(lambda: load_remote(remote))
    assert time.monotonic() - started < 30
    assert asked(server, 3) == 3
    assert names(cached(tmp_path).parent) == []


def test_a_server_that_drips_headers_is_left_too(server, remote, tmp_path, monkeypatch):
    """Each byte is in time for the socket, and the answer never begins."""
    monkeypatch.setattr(datasets, "DEADLINE", 0.5)
    server.drips_headers = True
    started = time.monotonic()
    assert "not done after 0.5 s" in refused(lambda: load_remote(remote))
    assert time.monotonic() - started < 30
    assert asked(server, 3) == 3
    assert names(cached(tmp_path).parent) == []


@pytest.mark.usefixtures("remote")
def test_an_answer_that_begins_after_the_deadline_is_no_success(server, tmp_path):
    """Whether anybody still waits, or is just about to stop, the thread cannot know."""
    with pytest.raises(TimeoutError):
        datasets._receive(f"{server.url}tiny.npz", tmp_path / "late.npz", time.monotonic() - 1)
    assert not (tmp_path / "late.npz").exists()


def test_a_server_that_falls_silent_is_left(server, remote, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "TIMEOUT", 0.2)
    server.pause = 1
    assert "timed out" in refused(lambda: load_remote(remote))
    assert asked(server, 3) == 3
    assert names(cached(tmp_path).parent) == []


@pytest.mark.usefixtures("server")
def test_a_server_that_is_not_there_is_said_to_be_so(remote, monkeypatch):
    monkeypatch.setattr(datasets, "HOST", "http://127.0.0.1:9/")
    assert "Connection refused" in refused(lambda: load_remote(remote))


@pytest.mark.parametrize(
    "where", ["http://localhost:9/elsewhere", "ftp://localhost:9/a", "file:///a"]
)
def test_a_redirect_to_another_host_is_not_followed(server, tmp_path, where):
    server.answers = [(302, b"", None)]
    server.redirect = where
    text = refused(lambda: download(server.url + "a", tmp_path / "a", lambda _: None))
    assert f"redirected away, to {where}" in text or "302" in text
    assert set(server.requests) == {"/a"}


def test_a_redirect_from_https_to_plain_http_is_not_followed():
    """What the handler that `download` opens everything with makes of the real host's answer."""
    plain = datasets.HOST.replace("https:", "http:") + "mnist.npz"
    asked = Request(datasets.HOST + "mnist.npz")  # noqa: S310 -- nothing is opened
    with pytest.raises(URLError, match="redirected away"):
        datasets._HttpsOnly().redirect_request(asked, None, 302, "Found", {}, plain)
    there = datasets._HttpsOnly().redirect_request(
        asked, None, 302, "Found", {}, datasets.HOST + "moved.npz"
    )
    assert there.full_url == datasets.HOST + "moved.npz"


def test_the_server_is_asked_over_https():
    assert datasets.HOST.startswith("https://")
