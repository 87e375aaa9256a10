"""The pipeline's code. Ctrl-C ends a stage in one line, also while it loads its libraries."""

import os
import signal
import sys
from types import FrameType

from stages.files import GO_ON, INTERRUPTED, run

IMPORTING = "<frozen importlib"  # how the file names of Python's import system begin


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt within `run`, which handles it; elsewhere end the program at once.

    So too within an import, where an exception can get lost: Python ignores one that is raised in
    a callback of its import system, and libraries make it an ImportError of their own or take it
    for the sign that an optional dependency is missing.
    """
    while frame and not frame.f_code.co_filename.startswith(IMPORTING):
        if frame.f_code is run.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back
    os.write(sys.__stderr__.fileno(), f"{GO_ON}\n".encode())
    os._exit(INTERRUPTED)


# Only `python -m stages.…` has this first argument here; whoever imports a module of ours into a
# program or a notebook keeps their own way of handling Ctrl-C.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)
