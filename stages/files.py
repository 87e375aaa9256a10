"""Writing files whole, and ending a stage with one line instead of a traceback."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (None, errno.EDQUOT, errno.EFBIG, errno.ENOSPC)  # None: what NumPy and HDF5 raise
LONGEST = 1000  # characters of a message
INTERRUPTED = 130  # exit status of a program ended by Ctrl-C (128 + SIGINT)


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
    """Call a stage's `main`; a user's mistake ends in one line and exit status 1."""
    try:
        main()
    except StageError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "; is the disk full?" if error.errno in FULL else ""
        sys.exit(f"error: {one_line(f'{where}{error.strerror or error}{hint}')}")
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` starts this stage again", file=sys.stderr)
        sys.exit(INTERRUPTED)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its name when the block succeeds.

    A reader thus finds the old file, the new one or none, never a part of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


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
