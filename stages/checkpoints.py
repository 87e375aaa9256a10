"""Checkpoints: what a training needs to go on after its last whole epoch, in one file.

`data/checkpoints/MODEL-KEY.ckpt`, outside DVC's outputs, which DVC removes before it runs a stage.
KEY is a digest of all that decides the training's bytes, so that a checkpoint never continues
another training than its own. Each epoch replaces the file whole: a kill or a power cut leaves the
one of the epoch before. Comments and docstrings are no part of the key.

Why not `keras.callbacks.BackupAndRestore` (callbacks/backup_and_restore.py of Keras 3.15)? It
- writes `latest.weights.h5` in place and `training_metadata.json` after it, neither renamed into
  place nor synced: killed between the two, it trains an epoch a second time and says nothing;
- keeps no history and no best weights of early stopping, and cannot tell whose weights it holds;
- removes them at the end of each `Model.fit`, of which there is one an epoch here.
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

from stages.digests import code_digest
from stages.files import replacing

FOLDER = Path("data/checkpoints")
KEPT = 3  # unfinished trainings a model, beside the one that runs: people go back to parameters
KEY_LENGTH = 16  # hexadecimal digits
DIGEST = hashlib.sha256
# What takes part in a training; tests/test_checkpoints.py holds this to train's list in dvc.yaml.
MODULES = (
    "archive", "archive_checks", "backend", "checkpoints", "digests", "files", "models",
    "params", "prepared", "train", "training",
)  # fmt: skip


@dataclass
class Progress:
    """A training after a whole epoch.

    `rows` are the history so far, a row an epoch; `variables` those of the model (seeds of the
    dropout and statistics of normalizations included), then the optimizer's; `best_weights` what
    early stopping would go back to; `resumed` how often the training was continued.
    """

    rows: list[dict[str, float]]
    variables: list[np.ndarray]
    best_weights: list[np.ndarray] | None
    resumed: int = 0


class Checkpoint:
    """The checkpoint file of one training: of `model`, identified by JSON-like `facts`."""

    def __init__(self, model: str, facts: Mapping[str, Any], folder: Path = FOLDER):
        text = json.dumps({**facts, "code": code_digest(MODULES)}, sort_keys=True)
        self.model = model
        self.key = DIGEST(text.encode()).hexdigest()[:KEY_LENGTH]
        self.path = folder / f"{model}-{self.key}.ckpt"

    def save(self, progress: Progress) -> None:
        """Replace the file; when this returns, the disk has it."""
        facts = {
            "key": self.key,
            "rows": progress.rows,
            "resumed": progress.resumed,
            "best": progress.best_weights is not None,
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
        """Return what was saved; None when there is nothing, or (said in a line) nothing sound."""
        try:
            whole = self.path.read_bytes()
        except FileNotFoundError:
            return None
        size = DIGEST().digest_size
        digest, content = whole[:size], whole[size:]
        try:
            if DIGEST(content).digest() != digest:
                raise ValueError("its digest does not match")
            return self._unpack(content)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            print(f"{self.path} is damaged ({error}): not used, epoch 1 is next", flush=True)
            return None

    def _unpack(self, content: bytes) -> Progress:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["key"] != self.key:
                raise ValueError("it is another training's")
            named = {
                kind: [arrays[f"{kind}_{i}"] for i in range(_count(arrays.files, kind))]
                for kind in ("variable", "best")
            }
        best_weights = named["best"] if facts["best"] else None
        return Progress(facts["rows"], named["variable"], best_weights, facts["resumed"])

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)

    def _prune(self) -> None:
        """Remove all but the newest of this model's checkpoints under other keys."""
        others = self.path.parent.glob(f"{self.model}-{'?' * KEY_LENGTH}.ckpt")
        aged = sorted(
            (path for path in others if path != self.path), key=lambda path: path.stat().st_mtime
        )
        for path in aged[:-KEPT]:
            path.unlink(missing_ok=True)


def _count(names: list[str], kind: str) -> int:
    return sum(name.startswith(f"{kind}_") for name in names)
