"""Made-up `.keras` files: what they describe, their weights, their members, their bytes."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from conftest import TINY, set_keys
from fuzz_common import LARGE, TRAP, Target, archives, damaged, mutated, zipped
from fuzz_params import DOCUMENT
from hypothesis import strategies as st

MODULES = st.sampled_from([
    "keras", "keras.layers", "keras.utils", "keras.saving", "builtins", "os", "subprocess", "numpy",
    "keras.src.utils.file_utils", "keras.initializers", "keras.activations", "keras.models", None,
])  # fmt: skip
CLASSES = st.sampled_from([
    "Lambda", "function", "get_file", "TFSMLayer", "StringLookup", "TextVectorization", "system",
    "load_model", "Dense", "Sequential", "Functional", "__lambda__", "__numpy__", "__tensor__",
    "__typespec__", "__bytes__", "TorchModuleWrapper", "enable_unsafe_deserialization",
    "Orthogonal", "DTypePolicy", "Embedding", "UpSampling2D", "LSTM", "InputLayer",
])  # fmt: skip
OBJECTS = st.builds(
    lambda module, name, config: {
        "module": module, "class_name": name, "config": config, "registered_name": None,
    },
    MODULES, CLASSES,
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


class Members(dict):
    """The members of a file, which Hypothesis shall not print."""

    def __repr__(self) -> str:
        return f"<{len(self)} members>"


def built() -> list[Members]:
    """Return the members of a saved file of each architecture."""
    from stages.archive import save_model
    from stages.models import build
    from stages.params import MODELS, parse_params

    params = parse_params(set_keys(DOCUMENT, TINY))
    found = []
    for name in MODELS:
        save_model(build(name, (12, 12, 1), 3, getattr(params, name)), Path("saved.keras"))
        with zipfile.ZipFile("saved.keras") as archive:
            found.append(Members((name, archive.read(name)) for name in archive.namelist()))
    return found


def strange_weights(kind: str, content: bytes) -> bytes:
    """Return a file of weights in which something is not a plain array."""
    import h5py

    file = io.BytesIO(content)
    with h5py.File(file, "a") as weights:
        group = weights["layers/dense/vars"]
        if kind in ("soft", "external", "loop"):
            link = {"soft": h5py.SoftLink("/layers/dense_1/vars/1"), "loop": group.parent,
                    "external": h5py.ExternalLink("/etc/hostname", "/")}[kind]  # fmt: skip
            group["2"] = link
        elif kind == "bomb":
            group.create_dataset(
                "2", (2**20, 2**10), "f4", chunks=(2**10, 2**10), compression="gzip"
            )
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
    return file.getvalue()


KINDS = ("soft", "external", "loop", "bomb", "late", "outside", "virtual", "nan", "object", "many")


@st.composite
def model_files(draw: st.DrawFn, models: list[dict[str, bytes]]) -> bytes:
    """A model file with its description, its weights, its members or its bytes changed."""
    members = Members(draw(st.sampled_from(models)))
    parts = draw(st.sets(st.sampled_from(["weights", "config", "bytes"]), max_size=2))
    for part in sorted(parts, reverse=True):
        if part == "config":
            config = draw(mutated(json.loads(members["config.json"]), JSON))
            members["config.json"] = json.dumps(config).encode()
        elif part == "weights":
            changed = strange_weights(draw(st.sampled_from(KINDS)), members["model.weights.h5"])
            members["model.weights.h5"] = changed
        else:  # below the ZIP's checksums
            name = draw(st.sampled_from(sorted(members)))
            members[name] = draw(damaged(members[name]))
    others = st.one_of(st.binary(max_size=60), st.just(gzip.compress(b"x" * 10**6)), st.just(TRAP))
    return draw(st.one_of(st.just(zipped(list(members.items()))), archives(members, others)))


def model_archives() -> Target:
    """A `.keras` file."""
    from stages.archive import load_model

    good = built()
    inputs = st.one_of(model_files(good), model_files(good), st.binary())
    ready = [zipped(list(members.items())) for members in good]
    return Target(inputs, load_model, ready, ".keras", limit_addresses=False)
