"""The pipeline's code. A Ctrl-C while a stage still loads its libraries ends in one line, too."""

import os
import sys
from types import TracebackType

from stages.files import GO_ON, INTERRUPTED

_report = sys.excepthook


def _end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Say how to go on where `stages.files.run` is not there yet to say it."""
    if not interrupted(error):
        _report(kind, error, traceback)
        return
    print(GO_ON, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)  # Python itself would end as if killed by the signal


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C's, or is what a library made of it (SciPy: an ImportError)."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


sys.excepthook = _end
