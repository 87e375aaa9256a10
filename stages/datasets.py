"""Raw image classification data: where they come from, and proof that they are what they claim.

MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017) are looked up in, and downloaded
to, Keras's own cache folder. Whatever container they came in, the decoded arrays must have the
SHA-256 written here. `digits` is the UCI set inside scikit-learn. Anything else is a user's `.npz`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, build_opener

import numpy as np
from tqdm import tqdm

from stages.files import StageError, replacing

HOST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"  # Keras's own mirror
ATTEMPTS = 3
TIMEOUT = 20  # seconds without a byte
DEADLINE = 600  # seconds for a whole file
MAX_DOWNLOAD = 64 * 2**20  # bytes; the largest file listed here has 26 MB
MAX_ARRAYS = 3 * 2**28  # bytes of all the arrays of an .npz together; splitting holds them twice
MAX_HEADER = 2**17  # bytes of an .npy before its values; NumPy stops at 10,000 characters
MAX_NAME = 200  # characters of a class name
JOINERS = {0x200C: None, 0x200D: None}  # do not print, but Persian, Hindi and emoji need them
CHUNK = 1 << 20  # bytes unpacked at a time
SPLIT_ARRAYS = ("x_train", "y_train", "x_test", "y_test")

DIGITS_TEST = 360  # of 1797 images, about MNIST's proportion of train to test for so small a set
DIGITS_SEED = 0
MNIST_BOX = 20  # MNIST's digits fill a box of 20 × 20 pixels ...
MNIST_SIDE = 28  # ... centred by centre of mass in a field of 28 × 28


@dataclass(frozen=True)
class Dataset:
    """Images `x` as uint8 (n, height, width, channels); labels `y` as int32 (n,), 0-based."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Remote:
    """A published data set: its files in the cache, and what their arrays must be."""

    files: dict[str, str]  # path in the cache folder -> name on the server
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
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}


def load_dataset(name: str) -> Dataset:
    """Return the data set that `dataset` in `params.yaml` names.

    Parameters
    ----------
    name
        ``mnist``, ``fashion_mnist``, ``digits``, or the path of an ``.npz`` with the arrays
        ``x_train, y_train, x_test, y_test`` and optionally ``class_names``.

    Raises
    ------
    StageError
        The data cannot be had, or are not what they should be. Files are left as they are.
    """
    if name == "digits":
        return load_digits()
    if name in REMOTES:
        return load_remote(REMOTES[name])
    return load_npz(Path(name))


def array_digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


# --- published data sets ------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder where Keras keeps its data sets, `$KERAS_HOME/datasets`."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "datasets"


def load_remote(remote: Remote) -> Dataset:
    """Load a published data set from the cache, downloading what is not there."""
    arrays = {}
    for path, file_name in remote.files.items():
        cached = cache_folder() / path
        if not cached.exists():
            download(HOST + file_name, cached, partial(_verified, path=path, remote=remote))
        arrays |= _verified(cached, path, remote)
    return Dataset(
        x_train=arrays["x_train"][..., None],
        y_train=arrays["y_train"].astype(np.int32),
        x_test=arrays["x_test"][..., None],
        y_test=arrays["y_test"].astype(np.int32),
        class_names=remote.class_names,
    )


def _verified(file: Path, path: str, remote: Remote) -> dict[str, np.ndarray]:
    """Decode `file`, which stands for `path` in the cache, and check its arrays' digests."""
    if file.suffix == ".npz":
        arrays = read_npz(file, SPLIT_ARRAYS)
    else:
        key = ("x" if "images" in path else "y") + ("_train" if "train" in path else "_test")
        arrays = {key: read_idx(file)}
    for key, array in arrays.items():
        if array.dtype != np.uint8 or array_digest(array) != remote.sha256[key]:
            raise StageError(
                f"{file}: {key} is not the published data (SHA-256 differs). The file was left as "
                f"it is: move it away to have it downloaded again, or use dataset=digits"
            )
    return arrays


class _HttpsOnly(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith(HOST):
            raise URLError(f"redirected away, to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, destination: Path, check: Callable[[Path], object]) -> None:
    """Fetch `url` to `destination`, which appears only once `check` has accepted the file.

    Raises
    ------
    StageError
        After `ATTEMPTS` failures, or at once when the server refuses or `check` does.
    """
    by_hand = (
        f"put the file at {destination} by hand, or use dataset=digits, which needs no download"
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with replacing(destination) as part:
                _fetch(url, part)
                check(part)
            return
        except HTTPError as error:
            reason, final = f"the server answered {error.code} {error.reason}", error.code < 500
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason, final = str(getattr(error, "reason", error)) or type(error).__name__, False
        except StageError as error:
            raise StageError(f"the download of {url} is damaged ({error}); {by_hand}") from None
        if final:
            break
        if attempt < ATTEMPTS:
            sleep(2 ** (attempt - 1))
    raise StageError(f"cannot download {url} ({reason}, attempt {attempt}); {by_hand}")


def _fetch(url: str, destination: Path) -> None:
    """Receive a file in a thread, which is left to itself where it is not done at the deadline.

    A socket's own timeout starts anew with each byte, of the headers too.
    """
    deadline = monotonic() + DEADLINE
    failures: list[BaseException] = []

    def work() -> None:
        try:
            _receive(url, destination, deadline)
        except Exception as error:  # raised below, in the thread that waits
            failures.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if thread.is_alive():
        raise TimeoutError(f"not done after {DEADLINE} s")
    if failures:
        raise failures.pop()  # not kept here: its traceback holds this frame, and sockets


def _receive(url: str, destination: Path, deadline: float) -> None:
    """Write what a server answers to a file, as long as the deadline has not passed."""
    with build_opener(_HttpsOnly).open(url, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else 0
        if monotonic() > deadline:  # perhaps nobody waits any more, and the folder is gone
            raise TimeoutError(f"not done after {DEADLINE} s")
        name = url.split("/")[-1]
        with (
            destination.open("wb") as file,
            tqdm(total=size or None, unit="B", unit_scale=True, desc=name) as bar,
        ):
            while chunk := response.read1(1 << 16):  # what is there: drops would pass the deadline
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > MAX_DOWNLOAD:
                    raise URLError(f"more than {MAX_DOWNLOAD} bytes")
                if monotonic() > deadline:
                    raise TimeoutError(f"not done after {DEADLINE} s")
            if size and file.tell() != size:
                raise URLError(f"cut short at {file.tell()} of {size} bytes")


# --- containers ---------------------------------------------------------------------------


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of uint8 (format: yann.lecun.com/exdb/mnist).

    Returns
    -------
    numpy.ndarray
        uint8, of the shape that the header states.

    Raises
    ------
    StageError
        The file is not whole, not IDX, or larger than `MAX_ARRAYS`.
    """
    try:
        with gzip.open(path) as file:
            zero, kind, dimensions = int.from_bytes(file.read(2), "big"), *file.read(2)
            shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
            size = math.prod(shape)
            if zero != 0 or kind != 0x08 or dimensions not in (1, 3):
                raise StageError(f"{path} is not an IDX file of bytes with 1 or 3 dimensions")
            if size > MAX_ARRAYS:
                raise StageError(f"{path} claims {size} bytes; the limit is {MAX_ARRAYS}")
            content = file.read(size + 1)
            if len(content) != size:
                raise StageError(f"{path} does not hold the {size} bytes that its header states")
            return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> Exception:
    """Return what to say when reading `path` failed: damage, in whatever way the readers of ZIP,
    gzip and deflate raise it, unless the message is ours or the system refused the file itself.
    """
    if isinstance(error, StageError | MemoryError) or getattr(error, "filename", None):
        return error
    return StageError(f"{path} is damaged or cut short ({error})")


def read_npz(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Read named arrays of an `.npz`, without unpickling and within `MAX_ARRAYS` bytes.

    Raises
    ------
    StageError
        The file or an array is missing, damaged, pickled or too large.
    """
    arrays: dict[str, np.ndarray] = {}
    budget = MAX_ARRAYS
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in (*required, *optional):
                info = members.get(f"{name}.npy")
                if info is None and name in optional:
                    continue
                if info is None:
                    raise StageError(f"{path} has no array {name!r}; needed: {', '.join(required)}")
                budget -= info.file_size
                if budget < 0:
                    raise StageError(f"{path} unpacks to more than {MAX_ARRAYS} bytes")
                arrays[name] = _read_npy(_unpack(archive, info), f"{path}: {name}")
    except FileNotFoundError:
        raise StageError(f"{path} does not exist (dataset in params.yaml names it)") from None
    except Exception as error:
        raise _damaged(path, error) from None
    return arrays


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Return a member of the size that it claims; what it truly unpacks to may be far more.

    In pieces: a bzip2 or LZMA member, or one read as a whole, is unpacked without a limit.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise StageError(f"{archive.filename}: {info.filename} is packed in a way NumPy never does")
    content = np.zeros(info.file_size, np.uint8)  # takes no memory before it is filled
    filled = 0
    with archive.open(info) as member:
        while piece := member.read(CHUNK):
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
    if filled != info.file_size:
        raise StageError(f"{archive.filename}: {info.filename} is cut short")
    return content


def _read_npy(content: np.ndarray, where: str) -> np.ndarray:
    """Decode an `.npy` in place; its header must describe just the bytes that follow it."""
    file = io.BytesIO(content[:MAX_HEADER].tobytes())
    try:
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
    except Exception as error:  # whatever NumPy's and Python's parsers raise
        reason = " ".join(str(error).split())[:120]
        raise StageError(f"{where} is not an array ({reason})") from None
    if dtype.hasobject:
        raise StageError(f"{where} holds Python objects, not numbers: images must share one size")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise StageError(f"{where} is cut short, or its header is wrong")
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran_order else "C")


# --- a user's own arrays ------------------------------------------------------------------


def load_npz(path: Path) -> Dataset:
    """Load and check a user's arrays.

    Images are integers in 0..255, (n, height, width) or (n, height, width, 1 or 3); labels are
    integers 0..classes-1, of which each occurs in the training set.
    """
    arrays = read_npz(path, SPLIT_ARRAYS, optional=("class_names",))
    x_train, y_train = _images(arrays, "x_train", path), _labels(arrays, "y_train", path)
    x_test, y_test = _images(arrays, "x_test", path), _labels(arrays, "y_test", path)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise StageError(f"{path}: x_{part} has {len(x)} images, y_{part} {len(y)} labels")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise StageError(
            f"{path}: the images differ in size: {x_train.shape[1:]} in x_train, "
            f"{x_test.shape[1:]} in x_test"
        )
    classes = int(max(y_train.max(), y_test.max())) + 1
    names = arrays.get("class_names")
    class_names = (
        tuple(str(i) for i in range(classes))
        if names is None
        else _class_names(names, y_train, path)
    )
    if len(class_names) < max(classes, 2):
        raise StageError(
            f"{path}: {len(class_names)} classes are named, but the labels go up to {classes - 1}"
            if names is not None
            else f"{path}: the labels name a single class; there is nothing to classify"
        )
    counts = np.bincount(y_train, minlength=len(class_names))
    if (counts == 0).any():
        raise StageError(
            f"{path}: class {class_names[int(np.argmin(counts))]!r} has no training image"
        )
    return Dataset(x_train, y_train, x_test, y_test, class_names)


def _class_names(names: np.ndarray, y_train: np.ndarray, path: Path) -> tuple[str, ...]:
    """Return names that are text, can be written and told apart wherever they are shown."""
    if names.dtype.kind not in "USiu" or names.ndim != 1 or len(names) > len(y_train):
        raise StageError(f"{path}: class_names should be a list of text, one for each label")
    if not 0 < names.dtype.itemsize <= 4 * MAX_NAME:  # UTF-32
        raise StageError(f"{path}: a class name is empty or has more than {MAX_NAME} characters")
    codes = names.view(names.dtype.str[0] + ("u4" if names.dtype.kind == "U" else "u1"))
    try:
        if codes.max() > sys.maxunicode:  # of these NumPy makes text that crashes Python
            raise ValueError
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]
    except ValueError:  # code points that there are not
        raise StageError(f"{path}: class_names holds what is not text") from None
    for text in texts:
        if not text.strip() or not text.translate(JOINERS).isprintable():
            raise StageError(f"{path}: the class name {text!r} should be characters that print")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise StageError(f"{path}: two classes are named {twice!r}")
    return tuple(texts)


def _images(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    x = arrays[key]
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape:
        raise StageError(
            f"{path}: {key} has the shape {arrays[key].shape}; expected (images, height, width) "
            f"or (images, height, width, 1 or 3)"
        )
    if x.dtype.kind not in "iu" or x.min() < 0 or x.max() > 255:
        raise StageError(f"{path}: {key} ({x.dtype}) should hold whole numbers from 0 to 255")
    return np.ascontiguousarray(x, dtype=np.uint8)


def _labels(arrays: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    y = arrays[key]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise StageError(f"{path}: {key} should be a list of whole numbers, one for each image")
    if y.min() < 0 or y.max() >= len(arrays["y_train"]):
        raise StageError(
            f"{path}: {key} goes from {y.min()} to {y.max()}; labels are numbered from 0 "
            f"and each class needs an image"
        )
    return y.astype(np.int32)


# --- scikit-learn's digits ----------------------------------------------------------------


def load_digits() -> Dataset:
    """Return the UCI handwritten digits (Alpaydin & Kaynak, 1998) in MNIST's format."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    bunch = datasets.load_digits()
    x = np.stack([as_mnist(image / 16 * 255) for image in bunch.images])[..., None]
    y = bunch.target.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(y)), test_size=DIGITS_TEST, stratify=y, random_state=DIGITS_SEED
    )
    train, test = np.sort(train), np.sort(test)
    return Dataset(x[train], y[train], x[test], y[test], tuple("0123456789"))


def as_mnist(image: np.ndarray) -> np.ndarray:
    """Scale a square image into MNIST's box and centre it by mass in MNIST's field.

    Parameters
    ----------
    image
        (side, side), ink bright on 0, up to 255.

    Returns
    -------
    numpy.ndarray
        uint8 (28, 28).
    """
    from scipy import ndimage

    box = ndimage.zoom(image, MNIST_BOX / len(image), order=1, grid_mode=True, mode="nearest")
    field = np.zeros((MNIST_SIDE, MNIST_SIDE))
    margin = (MNIST_SIDE - MNIST_BOX) // 2
    field[margin : margin + MNIST_BOX, margin : margin + MNIST_BOX] = box
    centre = (MNIST_SIDE - 1) / 2
    offset = [round(centre - mass) for mass in ndimage.center_of_mass(field)]
    return np.rint(
        np.clip(np.roll(field, np.clip(offset, -margin, margin), (0, 1)), 0, 255)
    ).astype(np.uint8)
