"""Load MNIST and Fashion-MNIST from Keras's cache folder; download missing files.

The decoded arrays must have the SHA-256 listed here, whatever the file format.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np

from stages.common.arrays import array_digest
from stages.common.cli import StageError, one_line
from stages.common.files import replacing
from stages.datasets.containers import read_idx, read_npz
from stages.datasets.labelled_images import SPLIT_ARRAYS, Dataset

HOST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # Keras's own mirror
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ATTEMPTS = 3
TIMEOUT = 20  # seconds without receiving a byte


@dataclass(frozen=True)
class Remote:
    """A published dataset: its files, and the checksums of its arrays."""

    files: dict[str, str]  # path in the cache folder -> file name on the server
    sha256: dict[str, str]
    class_names: tuple[str, ...]


REMOTES = {
    "mnist": Remote(
        files={"mnist.npz": "mnist.npz"},
        sha256={
            "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
        class_names=tuple("0123456789"),
    ),
    "fashion_mnist": Remote(
        files={
            f"fashion-mnist/{name}": name
            for name in (
                "train-images-idx3-ubyte.gz",
                "train-labels-idx1-ubyte.gz",
                "t10k-images-idx3-ubyte.gz",
                "t10k-labels-idx1-ubyte.gz",
            )
        },
        sha256={
            "x_train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "y_train": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "x_test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "y_test": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
        class_names=CLOTHES,
    ),
}


def cache_folder() -> Path:
    """Return Keras's dataset folder, `$KERAS_HOME/datasets` (default `~/.keras/datasets`)."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "datasets"


def load_remote(remote: Remote) -> Dataset:
    """Return a published dataset from the cache. Download missing files first.

    Raises
    ------
    StageError
        A download fails, or a file is damaged or not the published data.
    """
    arrays = {}
    for path, file_name in remote.files.items():
        cached = cache_folder() / path
        if not cached.exists():
            download(HOST + file_name, cached, partial(_verified, path=path, remote=remote))
        try:
            arrays |= _verified(cached, path, remote)
        except StageError as error:
            raise StageError(
                f"{error}. The file was not changed: move it away to download it again, or use "
                "dataset=digits"
            ) from None
    return Dataset(
        x_train=arrays["x_train"][..., None],
        y_train=arrays["y_train"].astype(np.int32),
        x_test=arrays["x_test"][..., None],
        y_test=arrays["y_test"].astype(np.int32),
        class_names=remote.class_names,
    )


def _verified(file: Path, path: str, remote: Remote) -> dict[str, np.ndarray]:
    """Return the arrays in `file`, the download of `path`, after a check of their checksums."""
    if file.suffix == ".npz":
        arrays = read_npz(file, SPLIT_ARRAYS)
    else:
        key = ("x" if "images" in path else "y") + ("_train" if "train" in path else "_test")
        arrays = {key: read_idx(file)}
    for key, array in arrays.items():
        if array.dtype != np.uint8 or array_digest(array) != remote.sha256[key]:
            raise StageError(f"{file}: {key} differs from the published data (SHA-256)")
    return arrays


def download(url: str, destination: Path, check: Callable[[Path], object]) -> None:
    """Download `url` to `destination`. The file appears there only if `check` accepts it.

    Raises
    ------
    StageError
        After `ATTEMPTS` failures, or at once if the server refuses or `check` fails.
    """
    import pooch
    import requests

    by_hand = f"put the file at {destination} by hand, or use dataset=digits (no download)"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with replacing(destination) as part:
                show_progress = sys.stderr.isatty()
                pooch.HTTPDownloader(progressbar=show_progress, timeout=TIMEOUT)(url, part, None)
                check(part)
            return
        except StageError as error:
            reason = str(error).replace(str(part), part.name)
            raise StageError(f"the file at {url} fails its check ({reason}); {by_hand}") from None
        except requests.RequestException as error:
            status = 0
            if error.response is not None:
                status = error.response.status_code
                error.response.close()  # pooch leaves it open
            cause: BaseException = error
            while cause.__context__:  # the first is short, for example "Connection refused"
                cause = cause.__context__
            reason = f"the server answered {status}" if status else one_line(cause)
            if 400 <= status < 500:
                break
            if attempt < ATTEMPTS:
                print(f"download failed ({reason}); trying again", flush=True)
                sleep(2 ** (attempt - 1))
    raise StageError(f"cannot download {url} ({reason}; tried {attempt}×); {by_hand}")
