"""A fuzzing campaign: strange input by the thousand, in one process whose memory is limited.

    python tests/fuzzing.py TARGET EXAMPLES SEED

TARGET is MODULE.FUNCTION of the tests/fuzz_*.py, `fuzz_params.files` for one. Run in an empty
folder with the repository and its tests on PYTHONPATH. An input may be accepted, or refused with a
StageError of one line; anything else, and any program started, connection made, class unpickled or
file written while it is read, ends the campaign with the input that did it, made as small as
Hypothesis can. Prints JSON at the end.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
from fuzz_common import Target
from hypothesis import HealthCheck, Phase, settings

from stages.files import StageError

MEMORY = 2 * 2**30  # bytes
FORBIDDEN = (
    "os.chmod", "os.exec", "os.fork", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate", "pickle.find_class",
    "shutil.", "socket.", "subprocess.", "tempfile.", "urllib.",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Watch:
    """Notes what an input made the code do that reading it does not need."""

    def __init__(self) -> None:
        self.on, self.seen = False, []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if writes or event.startswith(FORBIDDEN):
            self.seen.append((event, str(arguments)[:300]))

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.on, self.seen = True, []
        try:
            yield
        finally:
            self.on = False


class Campaign:
    """Hands inputs to a target, and counts those accepted and refused."""

    def __init__(self, target: Target) -> None:
        self.target, self.watch = target, Watch()
        self.accepted = self.refused = 0

    def readable(self, value: Any) -> Any:
        """Return what the target reads: the value, or a file that holds it."""
        if not self.target.suffix:
            return value
        path = Path(f"input{self.target.suffix}")
        path.write_bytes(value)
        return path

    def check(self, value: Any) -> None:
        readable = self.readable(value)
        with warnings.catch_warnings(action="ignore"):
            try:
                with self.watch.watching():
                    self.target.read(readable)
                self.accepted += 1
                return
            except StageError as error:
                text = str(error)
            finally:
                assert not self.watch.seen, self.watch.seen
        assert len(text.splitlines()) == 1, text
        assert len(text) < 2000, "more than a line"
        self.refused += 1


def peak_bytes() -> int:
    """Return the peak resident set since this program began; `ru_maxrss` has its parent's too."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, in bytes there
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024


def main() -> None:
    module, function = sys.argv[1].split(".")
    examples, seed = int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")  # of making inputs up
    target: Target = getattr(importlib.import_module(module), function)()
    if target.limit_addresses:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    campaign = Campaign(target)
    for value in target.good:  # what these import is loaded before the watch begins
        target.read(campaign.readable(value))

    run = hypothesis.given(target.inputs)(campaign.check)
    run = settings(
        max_examples=examples, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )(run)  # fmt: skip
    started = time.monotonic()
    hypothesis.seed(seed)(run)()
    print(json.dumps({
        "inputs": campaign.accepted + campaign.refused,
        "accepted": campaign.accepted,
        "peak_bytes": peak_bytes(),
        "seconds": round(time.monotonic() - started, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
