"""End a command with one line: after a user's mistake, a system error, or Ctrl-C."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from types import FrameType

FULL = (errno.EDQUOT, errno.ENOSPC)
NEARLY_FULL = 2**24  # bytes of free disk space below which a failed write means a full disk
MAX_MESSAGE = 1000  # characters
INTERRUPTED = 130  # exit status after Ctrl-C (128 + SIGINT)
MEMORY = "error: not enough memory; close other programs, or use fewer or smaller images"
AGAIN = "interrupted; run the same command to start again"
RESUME = (  # of the pipeline
    "interrupted; run the same command again to continue. `dvc repro` keeps finished stages, and "
    "a training continues after its last complete epoch"
)
OURS = ("stages", "tools", "studies", "benchmarks")  # packages whose modules are commands
IMPORTING = "<frozen importlib"  # prefix of the file names of Python's import system


class StageError(Exception):
    """An error that the user can fix. Its text is the one line that they see."""

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(error: object) -> str:
    """Return the text of an error as one printable line of at most `MAX_MESSAGE` characters.

    Messages quote file names and file contents, which may contain anything: runs of white space
    become one space, and unprintable characters become escapes.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"


def run(main: Callable[[], None], resume: str = AGAIN) -> None:
    """Call `main`. On a `StageError`, a system error or a lack of memory, print one line and exit
    with status 1.

    On Ctrl-C, print `resume` instead: it says what is kept and how to continue. Characters that
    the terminal cannot encode are printed as escapes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except StageError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "; the disk is full" if disk_is_full(error) else ""
        sys.exit(f"error: {one_line(f'{where}{error.strerror or error}{hint}')}")
    except MemoryError:
        sys.exit(MEMORY)
    except KeyboardInterrupt:
        print(resume, file=sys.stderr)
        sys.exit(INTERRUPTED)


def disk_is_full(error: OSError) -> bool:
    """Return whether a full disk caused `error`. NumPy and HDF5 set no errno in that case."""
    nearly_full = shutil.disk_usage(".").free < NEARLY_FULL
    return error.errno in FULL or (error.errno is None and nearly_full)


def handle_ctrl_c() -> None:
    """Make Ctrl-C end a command with one line, also while it imports its libraries.

    Only our commands, started as `python -m …`, are changed. A program or notebook that imports our
    modules keeps its own handler.
    """
    ours = command().split(".")[0] in OURS
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def command() -> str:
    """Return the module that this process runs with `python -m`, or ""."""
    _, _, words = "\n".join(sys.orig_argv).partition("\n-m\n")
    return words.split("\n")[0]


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt inside `run`; otherwise end the process at once.

    During an import an exception can get lost: Python ignores exceptions in import callbacks, and
    libraries mistake them for a missing optional dependency.
    """
    importing, resume = False, RESUME if command().startswith("stages.") else AGAIN
    while frame:
        importing |= frame.f_code.co_filename.startswith(IMPORTING)
        if frame.f_code is run.__code__:
            if not importing:
                raise KeyboardInterrupt
            resume = frame.f_locals["resume"]
        frame = frame.f_back
    os.write(sys.__stderr__.fileno(), f"{resume}\n".encode())
    os._exit(INTERRUPTED)
