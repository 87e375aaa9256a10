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
from test_containers import idx

from stages.common.arrays import array_digest
from stages.common.cli import StageError
from stages.datasets import published
from stages.datasets.catalog import load_dataset
from stages.datasets.digits import as_mnist
from stages.datasets.published import REMOTES, Remote, cache_folder, load_remote

# --- digits -------------------------------------------------------------------------------


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
    assert array_digest(dataset.x_train) == array_digest(load_dataset("digits").x_train)


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


# --- published datasets -------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REMOTES))
def test_published_data_load_from_kerass_cache(name):
    missing = [path for path in REMOTES[name].files if not (cache_folder() / path).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not in {cache_folder()} (set KERAS_HOME)")
    dataset = load_dataset(name)
    assert dataset.x_train.shape == (60000, 28, 28, 1)
    assert dataset.x_test.shape == (10000, 28, 28, 1)
    assert len(dataset.class_names) == np.unique(dataset.y_train).size == 10


def test_the_checksums_are_those_of_the_published_arrays():
    digests = [digest[:8] for remote in REMOTES.values() for digest in remote.sha256.values()]
    assert digests == [
        "741c9888", "1feba77c", "6d87418d", "ddeff807",  # MNIST
        "2e487a6c", "657fbd22", "c867c93f", "3d0e6c6e",  # Fashion-MNIST
    ]  # fmt: skip
    assert published.HOST.startswith("https://")


# --- downloads ----------------------------------------------------------------------------


class Server:
    """A server on this machine that gives one of `answers` per request; the last one repeats."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, int | None]] = []  # status, body, claimed length
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, body, length = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in place of Keras's. Waits between attempts are recorded, not slept."""
    running = Server()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(published, "HOST", running.url)
    running.waits = []
    monkeypatch.setattr(published, "sleep", running.waits.append)
    yield running
    running.server.shutdown()
    running.server.server_close()


def npz(**shape: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{key: array.astype(np.uint8) for key, array in tiny_arrays(**shape).items()})
    return file.getvalue()


def remote_of(files: dict[str, str]) -> Remote:
    digests = {key: array_digest(a.astype(np.uint8)) for key, a in tiny_arrays().items()}
    return Remote(files, digests, class_names=("a", "b", "c"))


@pytest.fixture
def remote(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """A small published dataset on `server`, and an empty cache."""
    server.answers = [(200, npz(), None)]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return remote_of({"tiny.npz": "tiny.npz"})


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "datasets/tiny.npz"


def test_a_missing_file_is_downloaded_once(server, remote, cached):
    dataset = load_remote(remote)
    assert np.array_equal(dataset.x_train[..., 0], tiny_arrays()["x_train"])
    assert dataset.y_train.dtype == np.int32
    assert cached.read_bytes() == npz()
    load_remote(remote)
    assert server.requests == ["/tiny.npz"]


@pytest.mark.usefixtures("remote")
def test_gzipped_idx_files_are_downloaded_too(server, tmp_path):
    files = {f"folder/{name}": name for name in (
        "train-images.gz", "train-labels.gz", "t10k-images.gz", "t10k-labels.gz",
    )}  # fmt: skip
    server.answers = [(200, idx(a.astype(np.uint8)), None) for a in tiny_arrays().values()]
    dataset = load_remote(remote_of(files))
    assert server.requests == [f"/{name}" for name in files.values()]
    assert np.array_equal(dataset.y_test, tiny_arrays()["y_test"])
    assert names(tmp_path / "datasets/folder") == sorted(files.values())


def test_a_failed_download_is_tried_again_after_longer_waits(server, remote, cached):
    server.answers = [(503, b"", None), (200, npz()[:100], len(npz())), (200, npz(), None)]
    load_remote(remote)
    assert len(server.requests) == 3
    assert server.waits == [1, 2]
    assert names(cached.parent) == ["tiny.npz"]


BAD_ANSWERS = [  # answer, requests, what is said
    ((503, b"", None), 3, "the server answered 503; tried 3×"),
    ((404, b"gone", None), 1, "the server answered 404; tried 1×"),
    ((200, b"PK\3\4", 5000), 3, "4996 more expected"),
    ((200, b"an error page", None), 1, "fails its check (tiny.npz is damaged or cut off"),
    ((200, b"", None), 1, "fails its check (tiny.npz is damaged or cut off"),
    (
        (200, npz(seed=1), None),
        1,
        "fails its check (tiny.npz: x_train differs from the published data",
    ),
    (None, 0, "Connection refused; tried 3×"),
]


@pytest.mark.parametrize(("answer", "requests", "reason"), BAD_ANSWERS)
def test_a_failed_download_leaves_nothing_and_tells_what_to_do(
    server, remote, cached, monkeypatch, answer, requests, reason
):
    server.answers = [answer]
    if answer is None:
        monkeypatch.setattr(published, "HOST", f"{CLOSED_PORT}/")
    with pytest.raises(StageError) as refusal:
        load_remote(remote)
    by_hand = f"put the file at {cached} by hand, or use dataset=digits"
    for part in (reason, f"{published.HOST}tiny.npz", by_hand):
        assert part in str(refusal.value)
    assert len(server.requests) == requests
    assert names(cached.parent) == []


@pytest.mark.parametrize("content", [npz()[:500], b"", npz(seed=1)])
def test_a_bad_file_in_the_cache_is_reported_and_left(server, remote, cached, content):
    cached.parent.mkdir()
    cached.write_bytes(content)
    with pytest.raises(StageError, match="The file was not changed: move it away") as refusal:
        load_remote(remote)
    assert str(refusal.value).startswith(str(cached))
    assert cached.read_bytes() == content
    assert server.requests == []
