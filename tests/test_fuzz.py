"""Random input for everything that the project reads: parameters, data, models, pictures.

An input may be accepted, or refused with a StageError of one line. It must not start a program,
open a connection, unpickle a class, write a file or take more than 2 GB of memory. `make test-all`
tries the same few hundred inputs each time; the slow tests try 100,000 new ones. If one fails,
Hypothesis prints the smallest input that does, and the `--hypothesis-seed` that repeats the run.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import os
import re
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from conftest import ROOT, TINY, names, set_keys, tiny_arrays
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from own_data import PREPARE, load
from PIL import Image

from stages.common.cli import StageError
from stages.common.params import load_params, parse_params
from stages.datasets.containers import read_idx
from stages.datasets.picture_folders import read_picture as read_folder_picture
from tools.inputs import read_arrays

INPUTS = {  # of the slow tests
    "documents": 40_000,
    "yaml_files": 20_000,
    "npz_files": 18_000,
    "idx_files": 12_000,
    "csv_files": 10_000,
    "model_files": 4_000,
    "pictures": 6_000,
}
FEW = 300  # of the others
MEMORY = 2 * 2**30  # bytes
LARGE = 2**40
STATUS = Path("/proc/self/status")
FORBIDDEN = (
    "os.chmod", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate", "pickle.find_class",
    "shutil.", "socket.", "subprocess.", "tempfile.", "urllib.",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Target:
    """`read` gets what `inputs` makes, and must accept `good`.

    With a `suffix`, inputs are bytes, and `read` gets the path of a file with these bytes.
    """

    inputs: st.SearchStrategy
    read: Callable[[Any], object]
    good: list[Any]
    suffix: str = ""


@pytest.fixture(scope="module")
def watching() -> Callable[[], AbstractContextManager]:
    """Return a context manager that fails if its block does something forbidden."""
    active, seen = False, []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
            if writes or event.startswith(FORBIDDEN):
                seen.append((event, str(arguments)[:300]))

    sys.addaudithook(hook)  # Python cannot remove it

    @contextmanager
    def watch() -> Iterator[None]:
        nonlocal active
        active = True
        seen.clear()
        try:
            yield
        finally:
            active = False
            assert seen == []

    return watch


@contextmanager
def measured_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many bytes the resident memory grew at most (Linux)."""

    def memory(key: str) -> int:
        return int(re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024

    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory("VmRSS")
        yield lambda: memory("VmHWM") - before
    else:
        yield lambda: 0


@pytest.mark.parametrize(
    ("name", "examples", "repeatable"),
    [
        *(pytest.param(name, FEW, True, marks=pytest.mark.extra) for name in INPUTS),
        *(pytest.param(name, INPUTS[name], False, marks=pytest.mark.slow) for name in INPUTS),
    ],
)
def test_any_input_is_accepted_or_refused_in_one_line(
    name, examples, repeatable, watching, request, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if name == "model_files":
        request.getfixturevalue("backend")
    target: Target = globals()[name]()
    path = Path(f"input{target.suffix}")
    accepted: list[bool] = []

    def readable(value: Any) -> Any:
        if not target.suffix:
            return value
        path.write_bytes(value)
        return path

    @settings(
        max_examples=examples, derandomize=repeatable, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.inputs)
    def check(value: Any) -> None:
        value = readable(value)
        try:
            with watching():
                target.read(value)
            accepted.append(True)
            return
        except StageError as error:
            text = str(error)
        assert text.isprintable()  # a single line
        assert len(text) < 2000
        accepted.append(False)

    with warnings.catch_warnings(action="ignore"):
        for value in target.good:
            target.read(readable(value))
        with measured_memory() as used:
            check()
    assert set(accepted) == {True, False}, "the inputs are too strange, or not strange enough"
    assert set(names(tmp_path)) <= {path.name, "saved.keras"}
    assert used() < MEMORY


# --- strategies that several targets share ------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, cut out, insert or cut off a few bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["set", "set", "word", "delete", "insert", "cut"]))
        if kind == "set" and changed:
            changed[at] = draw(st.integers(0, 255))
        elif kind == "word":
            word = draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1]))
            order, size = draw(st.sampled_from(["big", "little"])), draw(st.sampled_from([2, 4, 8]))
            changed[at : at + size] = (word % 2 ** (8 * size)).to_bytes(size, order)
        elif kind == "delete":
            del changed[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[at:at] = draw(st.binary(max_size=32))
        elif kind == "cut":
            del changed[at:]
    return bytes(changed)


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """Return the path of every value in nested lists and mappings."""
    items = enumerate(value) if isinstance(value, list) else ()
    items = value.items() if isinstance(value, dict) else items
    return [here, *(place for key, item in items for place in places(item, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, document: Any, values: st.SearchStrategy) -> Any:
    """Replace, drop or add a few values of a nested document."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(changed)))
        if not place:
            continue
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "drop", "add"]))
        if action == "drop":
            del parent[place[-1]]
            continue
        value = copy.deepcopy(draw(values))  # strategies may return the same object twice
        if action == "replace":
            parent[place[-1]] = value
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = value
        else:
            parent.append(value)
    return changed


class Trap:
    """Creates the folder `sprung` if it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("sprung",))


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


TRAP = saved(np.array([Trap(), None], dtype=object))
PACKINGS = st.sampled_from([0, 0, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])


def zipped(members: list[tuple[str, bytes]], packing: int = 0, size: int | None = None) -> bytes:
    """Return a ZIP archive whose members claim to have `size` bytes, if given."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
        if size is not None:
            for info in archive.filelist:
                info.file_size = size
    return file.getvalue()


@st.composite
def archives(draw: st.DrawFn, members: dict[str, bytes], strange: st.SearchStrategy) -> bytes:
    """Return an archive with members replaced, added, renamed, dropped or packed differently."""
    chosen = dict(members)
    for _ in range(draw(st.integers(0, 2))):
        chosen[draw(st.sampled_from(sorted(members)))] = draw(strange)
    rows = list(chosen.items())
    if draw(st.booleans()):
        name = draw(st.sampled_from(["../sprung", "/sprung", "x.npy", *members, "", "a/../../b"]))
        action = draw(st.sampled_from(["add", "rename", "drop"]))
        at = draw(st.integers(0, len(rows) - 1))
        if action == "add":
            rows.append((name, draw(strange)))
        elif action == "rename":
            rows[at] = (name, rows[at][1])
        else:
            del rows[at]
    size = draw(st.sampled_from([None, None, None, 0, 200, 10**6, 2**29, 2**31]))
    return draw(damaged(zipped(rows, draw(PACKINGS), size)))


# --- params.yaml --------------------------------------------------------------------------

DOCUMENT = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-LARGE, LARGE), st.floats(), st.text(),
    st.integers(0, 3), st.floats(0, 1), st.floats(0, 1).map(str),
    st.builds(lambda: 10**5000), st.just("1" * 20_000 + "x"),
    st.from_regex(r"[-+]?\d+\.?\d*[eE]-?\d+"),
    st.binary(max_size=8), st.dates(), st.datetimes(), st.timedeltas().map(str),
    st.sampled_from(["mnist", "../../x.npz", "a\nb.npz", "\0.npz", "\ud800.npz", "/dev/zero.npz"]),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.booleans(), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(st.integers(), max_size=3).map(set),
    ),
    max_leaves=8,
)  # fmt: skip
LINES = yaml.safe_dump(DOCUMENT, sort_keys=False)
TOKENS = st.sampled_from([
    "!!int ''", "!!float ''", "!!bool maybe", "!!timestamp x", "!!binary '%'", "!!set {a, b}",
    "!!python/object/apply:os.mkdir ['sprung']", "!!python/name:os.system ''", "!x y", "*a", "&a",
    "&a [*a]", "<<: *a", "<<: {epochs: 3}", "[" * 400, "{" * 400, "? ", "- ", "|", ">", "'", '"',
    "0x" + "f" * 5000, "1:" * 400 + "1.0", "190:20:30", "0o7", "010", "2001-99-99", ".inf", ".nan",
    "0001-01-01T00:00:00+23:59", "1e400", "9" * 5000, "!!omap [a: 1]", "!!pairs [a: 1]", "---",
    "...", "%YAML 9.9", "%TAG ! tag:x,2000:", "\t", "\ufeff", "\x85", "\u2028", "~", "yes", "1e-05",
    "a: &a {b: 1}\nc: &c [*a,*a,*a]\nd: &d [*c,*c,*c]\ne: {<<: *d}", "epochs: 3", "=", "<<",
])  # fmt: skip


@st.composite
def yaml_lines(draw: st.DrawFn) -> bytes:
    """Return the real file with lines changed, inserted, doubled or dropped."""
    lines = LINES.splitlines()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        strange = draw(st.one_of(TOKENS, st.text(max_size=12)))
        action = draw(st.sampled_from(["value", "value", "insert", "double", "drop", "glue"]))
        if action == "value":
            lines[at] = lines[at].split(":")[0] + ": " + strange
        elif action == "insert":
            lines.insert(at, strange)
        elif action == "double":
            lines.insert(at, lines[at])
        elif action == "drop" and len(lines) > 1:
            del lines[at]
        elif action == "glue":
            lines[at] += strange
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def documents() -> Target:
    return Target(st.one_of(mutated(DOCUMENT, VALUES), VALUES), parse_params, [DOCUMENT])


def yaml_files() -> Target:
    pieces = st.lists(
        st.one_of(TOKENS, st.sampled_from(" \n\n  :,[]{}-?&*!|>'\"%@`#")), max_size=12
    )
    inputs = st.one_of(
        yaml_lines(), pieces.map(lambda parts: "".join(parts).encode()),
        st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(),
        damaged(LINES.encode()),
    )  # fmt: skip
    return Target(inputs, load_params, [LINES.encode()], ".yaml")


# --- data: .npz of a user, gzipped IDX ----------------------------------------------------

ARRAYS = tiny_arrays(side=(6, 5), per_class=4) | {"class_names": np.array(["a", "b", "ç"])}
NPZ_MEMBERS = {f"{name}.npy": saved(array) for name, array in ARRAYS.items()}
DTYPES = st.one_of(
    npst.scalar_dtypes(), npst.array_dtypes(max_size=2), npst.unicode_string_dtypes(max_len=3),
    npst.byte_string_dtypes(max_len=3), st.sampled_from(["u1", ">i8", "V0", "U0", "m8[s]", "b1"]),
)  # fmt: skip
SHAPES = st.one_of(
    npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    st.sampled_from([(12,), (12, 1), (12, 6, 5), (12, 6, 5, 1), (6, 6, 5), (6,), (3,)]),
)
HEADERS = st.one_of(
    st.fixed_dictionaries({
        "descr": st.one_of(
            st.sampled_from(["|u1", "<i8", "|O", "<U9", "<U99999999", "|V0", "<m8[s]", "<f4", "x"]),
            st.lists(st.tuples(st.text(max_size=3), st.sampled_from(["u1", "O"])), max_size=3),
        ),
        "fortran_order": st.booleans(),
        "shape": st.lists(st.one_of(st.integers(-3, 60), st.integers(0, LARGE)), max_size=4)
        .map(tuple),
    }).map(repr),
    st.sampled_from(["(" * 3000, "{'descr': __import__('os').mkdir('sprung')}", "1L", "", "'"]),
    st.text(max_size=20),
)  # fmt: skip


def npy(header: str, version: int, content: bytes) -> bytes:
    """Return an `.npy` with any text as its header."""
    text = header.encode("utf-8", "replace")
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + content


def filled(dtype: np.dtype | str, shape: tuple[int, ...], pattern: bytes) -> bytes:
    """Return an `.npy` of any type. Its values repeat `pattern`."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    content = (pattern * (size // len(pattern) + 1))[:size]
    return saved(np.ndarray(shape, dtype, content)) if not dtype.hasobject else TRAP


def load_both(path: Path) -> object:
    """Read a file as images without labels and as a dataset."""
    with suppress(StageError):
        read_arrays(path, PREPARE)
    return load(path)


def npz_files() -> Target:
    members = st.sampled_from(sorted(NPZ_MEMBERS)).map(NPZ_MEMBERS.get)
    strange = st.one_of(
        st.builds(filled, DTYPES, SHAPES, st.binary(min_size=1, max_size=16)),
        st.builds(filled, st.sampled_from(["u1", "i8"]), SHAPES, st.sampled_from([b"\0", b"\1"])),
        st.builds(npy, HEADERS, st.integers(0, 4), st.binary(max_size=200)),
        st.just(TRAP), st.binary(max_size=60), members, members.flatmap(damaged),
    )  # fmt: skip
    made = archives(NPZ_MEMBERS, strange)
    good = zipped(list(NPZ_MEMBERS.items()))
    return Target(st.one_of(made, made, st.binary()), load_both, [good], ".npz")


def idx_files() -> Target:
    starts = [b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x08\xff", b"\0\0\x0d\x01", b"\0"]
    sides = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)), max_size=4)

    def idx(start: bytes, sides: list[int], content: bytes) -> bytes:
        return start + b"".join(side.to_bytes(4, "big") for side in sides) + content

    contents = st.one_of(
        st.builds(idx, st.sampled_from(starts), sides, st.binary(max_size=80)),
        st.binary().map(lambda content: idx(starts[0], [len(content)], content)),
        st.binary(max_size=40),
    )
    packed = st.builds(
        lambda content, level: gzip.compress(content, level, mtime=0), contents, st.integers(0, 9)
    )
    inputs = st.one_of(
        packed, packed.flatmap(damaged), st.lists(packed, max_size=3).map(b"".join), st.binary()
    )
    good = gzip.compress(idx(starts[0], [3], b"abc"), mtime=0)
    return Target(inputs, read_idx, [good], ".gz")


CSV = "".join(f"{i % 2},{i},{i * 7},255,{i * i}\n" for i in range(8))
CELLS = st.sampled_from([
    "", "nan", "inf", "1e400", "-1", "0x1", "300", "70000", "a", '"', '"1"', "1;2", "0.5", "1,2",
    "\t", "é", "\x00", "9" * 400, "label", "\n", "True",
])  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Return a small CSV file with cells changed, with or without a header, gzipped or not."""
    rows = [line.split(",") for line in CSV.splitlines()]
    for _ in range(draw(st.integers(0, 2))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(CELLS)
    head = draw(st.sampled_from(["", "label,p0,p1,p2,p3\n", "p0,p1,p2,p3,y\n", "label,0,1,2,3\n"]))
    sep = draw(st.sampled_from([",", ",", ";", "\t"]))
    text = head + "".join(sep.join(row) + "\n" for row in rows)
    content = draw(st.one_of(st.just(text.encode()), damaged(text.encode())))
    return gzip.compress(content, mtime=0) if draw(st.booleans()) else content


def csv_files() -> Target:
    good = f"label,p0,p1,p2,p3\n{CSV}".encode()
    return Target(st.one_of(tables(), tables(), st.binary()), load_both, [good], ".csv")


# --- .keras -------------------------------------------------------------------------------

OBJECTS = st.builds(
    lambda module, name, config: {
        "module": module, "class_name": name, "config": config, "registered_name": None,
    },
    st.sampled_from([
        "keras", "keras.layers", "keras.utils", "keras.saving", "builtins", "os", "subprocess",
        "numpy", "keras.src.utils.file_utils", "keras.initializers", "keras.activations",
        "keras.models", None,
    ]),
    st.sampled_from([
        "Lambda", "function", "get_file", "TFSMLayer", "StringLookup", "TextVectorization",
        "system", "load_model", "Dense", "Sequential", "Functional", "__lambda__", "__numpy__",
        "__tensor__", "__typespec__", "__bytes__", "TorchModuleWrapper",
        "enable_unsafe_deserialization", "Orthogonal", "DTypePolicy", "Embedding", "UpSampling2D",
        "LSTM", "InputLayer",
    ]),
    st.sampled_from([
        {}, {"filepath": "/etc/passwd"}, {"vocabulary": "/etc/passwd"}, "relu", {"units": LARGE},
        {"fname": "../sprung", "origin": "http://127.0.0.1:9/x"}, {"value": [0] * 99, "dtype": "O"},
        {"function": {"class_name": "__lambda__", "config": {"value": ["4wAAAAA=", None, None]}}},
        {"name": "../../sprung", "units": 3}, {"layers": []},
    ]),
)  # fmt: skip
JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from([LARGE, 10**30, 2**31, 2**63]),
    st.floats(), st.text(max_size=6), OBJECTS, OBJECTS, st.lists(st.integers(0, LARGE), max_size=4),
    st.sampled_from(["relu", "softmax", "int8", "mixed_bfloat16", "channels_first", "../sprung"]),
)  # fmt: skip


def strange_weights(kind: str, content: bytes) -> bytes:
    """Return a weight file that contains something other than plain arrays."""
    file = io.BytesIO(content)
    with h5py.File(file, "a") as weights:
        group = weights["layers/dense/vars"]
        if kind == "bomb":
            shape, chunks = (2**20, 2**10), (2**10, 2**10)
            group.create_dataset("2", shape, "f4", chunks=chunks, compression="gzip")
        elif kind == "late":
            group.create_dataset("2", (2**20, 2**10), "f4")
        elif kind == "outside":
            group.create_dataset("2", (9,), "f4", external=[("sprung", 0, 36)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((9,), "f4")
            layout[:] = h5py.VirtualSource("/etc/hostname", "x", (9,))
            group.create_virtual_dataset("2", layout)
        elif kind == "nan":
            group["1"][0] = np.nan
        elif kind == "object":
            group.create_dataset("2", data=["a", "b"])
        elif kind == "many":
            for name in map(str, range(2, 300)):
                group[name] = group["0"]
        else:
            links = {"soft": h5py.SoftLink("/layers/dense_1/vars/1"), "loop": group.parent,
                     "external": h5py.ExternalLink("/etc/hostname", "/")}  # fmt: skip
            group["2"] = links[kind]
    return file.getvalue()


KINDS = ("soft", "external", "loop", "bomb", "late", "outside", "virtual", "nan", "object", "many")


@st.composite
def changed_models(draw: st.DrawFn, models: list[dict[str, bytes]]) -> bytes:
    """Return a model file with its config, its weights, its members or its bytes changed."""
    members = dict(draw(st.sampled_from(models)))
    parts = draw(st.sets(st.sampled_from(["weights", "config", "bytes"]), max_size=2))
    for part in sorted(parts, reverse=True):
        if part == "config":
            config = draw(mutated(json.loads(members["config.json"]), JSON))
            members["config.json"] = json.dumps(config).encode()
        elif part == "weights":
            changed = strange_weights(draw(st.sampled_from(KINDS)), members["model.weights.h5"])
            members["model.weights.h5"] = changed
        else:  # before the ZIP's checksums are computed
            name = draw(st.sampled_from(sorted(members)))
            members[name] = draw(damaged(members[name]))
    others = st.one_of(st.binary(max_size=60), st.just(gzip.compress(b"x" * 10**6)), st.just(TRAP))
    return draw(st.one_of(st.just(zipped(list(members.items()))), archives(members, others)))


def model_files() -> Target:
    from stages.models import build
    from stages.models.shared.archive import load_model, save_model

    models = []
    for name, section in parse_params(set_keys(DOCUMENT, TINY)).models.items():
        save_model(build(name, (12, 12, 1), 3, section), Path("saved.keras"))
        with zipfile.ZipFile("saved.keras") as archive:
            models.append({member: archive.read(member) for member in archive.namelist()})
    made = changed_models(models)
    good = [zipped(list(members.items())) for members in models]
    return Target(st.one_of(made, made, st.binary()), load_model, good, ".keras")


# --- pictures -----------------------------------------------------------------------------


def picture(kind: str, mode: str, **options: Any) -> bytes:
    file = io.BytesIO()
    values = np.arange(300, dtype=np.uint8).reshape(15, 20) // 16
    values[3:12, 9:11] = 230  # a "1"
    image = Image.fromarray(values)
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with correct checksums in all of its complete chunks."""
    at, made = 8, bytearray(content)
    while at + 12 <= len(made):
        end = at + 8 + int.from_bytes(made[at : at + 4], "big")
        if end + 4 > len(made):
            break
        made[end : end + 4] = zlib.crc32(made[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(made)


def png_bomb(side: int) -> bytes:
    """Return a PNG of a few bytes whose header claims `side` × `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(10**6)), b"IEND": b""}
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks.items():
        content += struct.pack(">I", len(data)) + kind + data + bytes(4)
    return with_checksums(content)


def pictures() -> Target:
    from tools.inputs import read_picture
    from tools.predict import Look, as_input

    look = Look((28, 28, 1), 0, mnist=True, own=False)

    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    png = [picture("PNG", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16")]
    jpeg = [picture("JPEG", mode, exif=exif) for mode in ("L", "RGB", "CMYK")]
    inputs = st.one_of(
        st.sampled_from(png).flatmap(damaged), st.sampled_from(jpeg).flatmap(damaged),
        st.sampled_from([*png, png_bomb(40_000)]).flatmap(damaged).map(with_checksums),
        st.binary(),
    )  # fmt: skip

    def read(path: Path) -> object:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            read_folder_picture(path, 28)
        return as_input(read_picture(path), look)

    return Target(inputs, read, png[1:2], ".png")
