"""Read and write files atomically: readers see the old file or the new file, never a part."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.common.cli import StageError

RERUN = "delete it and run `dvc repro`"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` if the block succeeds.

    Readers see the old file or the new file, never a partial one, even after a power cut.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync(path.parent.parent)
    with temporary_folder(path.parent, f".{path.name}-") as folder:
        temporary = folder / path.name
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in `parent`; at the end, remove it and the folders of killed processes."""
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with holding(parent, wait=True):  # so that nobody removes the folder before it is locked
            remove_leftovers(parent, prefix)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=parent))
            stack.enter_context(holding(Path(folder)))
        yield Path(folder)


@contextmanager
def holding(path: Path, wait: bool = False) -> Iterator[bool]:
    """Lock `path` during the block. Without `wait`, yield False if another process holds the lock.

    The system releases the lock when a process ends or is killed, so an unlocked temporary folder
    belongs to nobody.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        held = False
        with suppress(OSError):  # held by another process, or a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(handle)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the temporary folders that no running process has locked."""
    name = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")
    for path in [path for path in parent.iterdir() if name.fullmatch(path.name)]:
        with suppress(OSError), holding(path) as free:
            if free:
                shutil.rmtree(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # this file system cannot sync
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity raise ValueError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Return the value in a JSON file. A missing or damaged file raises StageError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro` to create it") from None
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is not valid JSON ({error}); {RERUN}") from None


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write mappings with equal keys as the rows of a CSV file, atomically.

    `columns` are needed only if there may be no row.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as mappings. A missing or damaged file raises StageError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        if not text.endswith("\n") or any(None in (*row, *row.values()) for row in rows):
            raise ValueError("it is cut off")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; run `dvc repro` to create it") from None
    except (csv.Error, ValueError) as error:
        raise StageError(f"{path} is not a complete CSV file ({error}); {RERUN}") from None
    return rows
