"""Writing files whole, and ending a stage with one line instead of a traceback."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FULL = (None, errno.EDQUOT, errno.EFBIG, errno.ENOSPC)  # None: what NumPy and HDF5 raise
LONGEST = 1000  # characters of a message
INTERRUPTED = 130  # exit status of a program ended by Ctrl-C (128 + SIGINT)
GO_ON = (
    "interrupted; the same command goes on from here: `dvc repro` keeps the stages that are done, "
    "and a training continues after its last whole epoch"
)


class StageError(Exception):
    """A mistake that the user can mend; its text is the one line they see."""

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Return `text` with line breaks and all else that does not print as escapes.

    What users name or what their files hold is quoted in messages: it may hold anything.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def run(main: Callable[[], None]) -> None:
    """Call a stage's `main`; a user's mistake ends in one line and exit status 1.

    What the terminal's encoding lacks is printed as an escape.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except StageError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "; is the disk full?" if error.errno in FULL else ""
        sys.exit(f"error: {one_line(f'{where}{error.strerror or error}{hint}')}")
    except KeyboardInterrupt:
        print(GO_ON, file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its name when the block succeeds.

    A reader thus finds the old file, the new one or none, never a part of one; nor does a power
    cut leave a part. What a killed process left half-written of `path` is removed.
    """
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync(path.parent.parent)
    remove_leftovers(path.parent, f".{path.stem}-", path.suffix)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with holding(temporary):
            yield temporary
            sync(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder below `parent`, removed at the end; so are those of killed processes."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, holding(Path(folder)):
        yield Path(folder)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Lock `path` for the block; yield whether nobody else holds it.

    The system frees the lock when a process ends, be it killed: what nobody holds is a leftover.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        held = False
        with suppress(OSError):  # held by another process, or a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, prefix: str, suffix: str = "") -> None:
    """Remove the files and folders that `tempfile` so named and no running process holds."""
    name = re.compile(re.escape(prefix) + "[a-z0-9_]{8}" + re.escape(suffix))
    for path in [path for path in folder.iterdir() if name.fullmatch(path.name)]:
        with suppress(OSError), holding(path) as free:
            if free and path.is_dir():
                shutil.rmtree(path)
            elif free:
                path.unlink()


def sync(path: Path) -> None:
    """Wait until the disk has what was written to a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that cannot
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity raise ValueError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; StageError names the file when it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro` makes it") from None
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is not whole JSON ({error}); remove it and `dvc repro`") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, which all have the first one's keys, as CSV with a header."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV's rows by the header's names; StageError names a file that is missing or cut."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        if not text.endswith("\n") or any(None in (*row, *row.values()) for row in rows):
            raise ValueError("it was cut short")
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro` makes it") from None
    except (csv.Error, ValueError) as error:
        raise StageError(f"{path} is not a whole CSV ({error}); remove it, `dvc repro`") from None
    return rows
