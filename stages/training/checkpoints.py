"""Save and load checkpoints, so that an interrupted training continues with the same bytes.

A checkpoint is one file, `data/checkpoints/MODEL-KEY.ckpt`. It is not an output of a stage, because
DVC deletes outputs before it runs a stage. KEY is a digest of everything that determines the
training's bytes, so a checkpoint never continues a different training. Each epoch replaces the file
atomically: after a kill or a power cut, the last complete checkpoint is still there.

`keras.callbacks.BackupAndRestore` (Keras 3.15) does less. It writes two files in place, so a kill
between the two trains an epoch twice. It keeps no history and no best weights, and does not check
that its weights belong to this training.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.files import replacing

FOLDER = Path("data/checkpoints")
KEPT = 3  # unfinished trainings kept per model, so that earlier parameters can resume
KEY_LENGTH = 16  # hexadecimal digits
DIGEST = hashlib.sha256
STAGES = Path(__file__).parents[1]


@dataclass
class Progress:
    """The state of a training after an epoch.

    `rows` is the history, one row per epoch. `variables` has the model's variables (with dropout
    seeds and batch-norm statistics), then the optimizer's. `best_weights` are the weights that
    early stopping would restore. `resumed` counts how often the training was resumed.
    """

    rows: list[dict[str, float]]
    variables: list[np.ndarray]
    best_weights: list[np.ndarray] | None
    resumed: int = 0


class Checkpoint:
    """The checkpoint file of one training of `model`, identified by `facts` and the code."""

    def __init__(self, model: str, facts: Mapping[str, Any], folder: Path = FOLDER):
        text = json.dumps({**facts, "code": code_digest(model)}, sort_keys=True)
        self.model = model
        self.key = DIGEST(text.encode()).hexdigest()[:KEY_LENGTH]
        self.path = folder / f"{model}-{self.key}.ckpt"

    def save(self, progress: Progress) -> None:
        """Replace the checkpoint file, and wait until it is on the disk."""
        facts = {
            "key": self.key,
            "rows": progress.rows,
            "resumed": progress.resumed,
            "variable": len(progress.variables),
            "best": None if progress.best_weights is None else len(progress.best_weights),
        }
        arrays = {f"variable_{i}": value for i, value in enumerate(progress.variables)}
        arrays |= {f"best_{i}": value for i, value in enumerate(progress.best_weights or [])}
        packed = io.BytesIO()
        np.savez(packed, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
        content = packed.getvalue()
        with replacing(self.path) as temporary:
            temporary.write_bytes(DIGEST(content).digest() + content)
        self._prune()

    def load(self) -> Progress | None:
        """Return the saved state, or None without a file. Ignore a damaged one with a message."""
        try:
            whole = self.path.read_bytes()
        except FileNotFoundError:
            return None
        size = DIGEST().digest_size
        digest, content = whole[:size], whole[size:]
        try:
            if DIGEST(content).digest() != digest:
                raise ValueError("its checksum does not match")
            return self._unpack(content)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            reason = f"ignoring the damaged checkpoint {self.path} ({error})"
            print(f"{reason}; training starts at epoch 1", flush=True)
            return None

    def _unpack(self, content: bytes) -> Progress:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["key"] != self.key:
                raise ValueError("it belongs to a different training")
            variables, best_weights = (
                None if facts[kind] is None else [arrays[f"{kind}_{i}"] for i in range(facts[kind])]
                for kind in ("variable", "best")
            )
        return Progress(facts["rows"], variables, best_weights, facts["resumed"])

    def remove(self) -> None:
        """Delete the checkpoint file if it exists."""
        self.path.unlink(missing_ok=True)

    def _prune(self) -> None:
        """Keep the `KEPT` newest of this model's other checkpoints, and delete the rest."""
        others = self.path.parent.glob(f"{self.model}-{'?' * KEY_LENGTH}.ckpt")
        aged = sorted(
            (path for path in others if path != self.path), key=lambda path: path.stat().st_mtime
        )
        for path in aged[:-KEPT]:
            path.unlink(missing_ok=True)


def code_digest(model: str) -> str:
    """Return the SHA-256 of the source files that a training of `model` runs."""
    folders, files = ("common", "training", "models/shared"), ("train", "models/__init__")
    modules = [path for folder in folders for path in (STAGES / folder).glob("[!.]*.py")]
    modules += [STAGES / f"{name}.py" for name in (*files, f"models/{model}")]
    digest = DIGEST()
    for path in sorted(modules):
        digest.update(path.name.encode() + DIGEST(path.read_bytes()).digest())
    return digest.hexdigest()
