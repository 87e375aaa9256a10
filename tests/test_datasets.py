"""Built-in datasets: digits in MNIST's format; published files, verified and downloaded."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CLOSED_PORT, names, tiny_arrays
from own_data import PREPARE

from stages.common.arrays import array_digest
from stages.common.cli import StageError
from stages.datasets import published
from stages.datasets.catalog import load_dataset
from stages.datasets.checks import check
from stages.datasets.digits import as_mnist
from stages.datasets.labelled_images import Dataset
from stages.datasets.published import REMOTES, Remote, cache_folder, load_remote
from stages.datasets.splits import split

DIGITS = {
    "x_train": "4cb85447a3675ee381760f6b67637e4e3fc95dc7dcec77830270135253de9fa3",
    "y_train": "f708df4b98e1eb3893212cab488c01cb45c0d7610f10f0c3568129ad3d0d26f2",
    "x_test": "3d083e8fb5f680419ec0b6593526c0aa4674f50be01675d84857a077e8a945d3",
    "y_test": "9ce5b942abae7d0eb162496b9c73c2e216b2c81d530486962e2be6dc989988bd",
}


def test_digits_are_scikit_learns_split_stratified():
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    assert dataset.x_train.shape == (1437, 28, 28, 1)
    assert dataset.x_test.shape == (360, 28, 28, 1)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.class_names == tuple("0123456789")
    labels = np.concatenate([dataset.y_train, dataset.y_test])
    assert np.array_equal(np.bincount(labels), np.bincount(load_digits().target))
    assert np.abs(np.bincount(dataset.y_test) / np.bincount(labels) - 360 / 1797).max() < 0.01
    train, test = ({image.tobytes() for image in x} for x in (dataset.x_train, dataset.x_test))
    assert not train & test
    assert {name: array_digest(getattr(dataset, name)) for name in DIGITS} == DIGITS


def test_digits_fill_mnists_box_and_are_centred_by_mass():
    from scipy.ndimage import center_of_mass

    for image in load_dataset("digits").x_test[:50, ..., 0]:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) < 20
        assert np.abs(np.array(center_of_mass(image)) - 13.5).max() <= 0.51
        assert image.max() > 200
    flat = as_mnist(np.full((8, 8), 255.0))
    assert np.array_equal(flat[4:24, 4:24], np.full((20, 20), 255, np.uint8))
    assert flat.sum() == 400 * 255


def published_data(name: str) -> Dataset:
    """Return a dataset from Keras's cache. Skip the test if it is not there."""
    missing = [path for path in REMOTES[name].files if not (cache_folder() / path).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not in {cache_folder()} (set KERAS_HOME)")
    return load_dataset(name)


@pytest.mark.parametrize("name", sorted(REMOTES))
def test_published_data_have_no_duplicates(name):
    dataset = published_data(name)
    assert check(split(dataset, PREPARE), dataset.class_names)["messages"] == []


@pytest.mark.parametrize("name", sorted(REMOTES))
def test_published_data_load_from_kerass_cache(name):
    dataset = published_data(name)
    assert dataset.x_train.shape == (60000, 28, 28, 1)
    assert dataset.x_test.shape == (10000, 28, 28, 1)
    assert len(dataset.class_names) == np.unique(dataset.y_train).size == 10


class Server(http.server.ThreadingHTTPServer):
    """A server that gives one of `answers` (status, body, length) per request, the last again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, int]] = []
        self.requests: list[str] = []
        self.waits: list[int] = []


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request with the server's next answer."""

    def do_GET(self) -> None:
        answers = self.server.answers
        status, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.requests.append(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in place of Keras's. Waits between attempts are recorded, not slept."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(published, "HOST", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(published, "sleep", server.waits.append)
        yield server
        server.shutdown()


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The path of the file of `TINY` in an empty cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "datasets/tiny.npz"


def npz(seed: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{key: a.astype(np.uint8) for key, a in tiny_arrays(seed=seed).items()})
    return file.getvalue()


GOOD, OTHER = npz(seed=0), npz(seed=1)
DIGESTS = {key: array_digest(array.astype(np.uint8)) for key, array in tiny_arrays().items()}
TINY = Remote({"tiny.npz": "tiny.npz"}, DIGESTS, class_names=("a", "b", "c"))


def test_a_missing_file_is_downloaded_once_after_longer_and_longer_waits(server, cached):
    server.answers = [(503, b"", 0), (200, GOOD[:100], len(GOOD)), (200, GOOD, len(GOOD))]
    for _ in range(2):
        dataset = load_remote(TINY)
        assert np.array_equal(dataset.x_train[..., 0], tiny_arrays()["x_train"])
        assert dataset.y_train.dtype == np.int32
    assert server.requests == 3 * ["/tiny.npz"]
    assert server.waits == [1, 2]
    assert names(cached.parent) == ["tiny.npz"]
    assert cached.read_bytes() == GOOD


BAD_ANSWERS = [  # answer, requests, what is said
    ((503, b"", 0), 3, "the server answered 503; tried 3×"),
    ((404, b"gone", 4), 1, "the server answered 404; tried 1×"),
    ((200, b"PK\3\4", 5000), 3, "4996 more expected"),
    ((200, b"an error page", 13), 1, "fails its check (tiny.npz is damaged or cut off"),
    ((200, b"", 0), 1, "fails its check (tiny.npz is damaged or cut off"),
    ((200, OTHER, len(OTHER)), 1, "(tiny.npz: x_train differs from the published data"),
    (None, 0, "Connection refused; tried 3×"),
]


@pytest.mark.parametrize(("answer", "requests", "reason"), BAD_ANSWERS)
def test_a_failed_download_leaves_nothing_and_tells_what_to_do(
    server, cached, monkeypatch, answer, requests, reason
):
    server.answers = [answer]
    if answer is None:
        monkeypatch.setattr(published, "HOST", f"{CLOSED_PORT}/")
    with pytest.raises(StageError) as refusal:
        load_remote(TINY)
    by_hand = f"put the file at {cached} by hand, or use dataset=digits"
    for part in (reason, f"{published.HOST}tiny.npz", by_hand):
        assert part in str(refusal.value)
    assert len(server.requests) == requests
    assert names(cached.parent) == []


@pytest.mark.parametrize("content", [GOOD[:500], b"", OTHER])
def test_a_bad_file_in_the_cache_is_reported_and_left(server, cached, content):
    cached.parent.mkdir()
    cached.write_bytes(content)
    with pytest.raises(StageError, match="The file was not changed: move it away") as refusal:
        load_remote(TINY)
    assert str(refusal.value).startswith(str(cached))
    assert cached.read_bytes() == content
    assert server.requests == []
