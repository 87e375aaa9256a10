"""What training results depend on besides data, parameters and the machine."""

from __future__ import annotations

import platform
from importlib.metadata import version

LIBRARIES = ("keras", "tensorflow", "numpy")
# Part of every trial's key. Raise it when a change of the code changes training results on purpose:
# recorded trials then no longer count. tests/test_results_version.py fails when results change.
RESULTS_VERSION = 1


def libraries() -> dict[str, str]:
    """Return the installed versions of the libraries that training depends on."""
    return {name: version(name) for name in LIBRARIES}


def versions() -> dict[str, str]:
    """Return the versions of Python, of `libraries`, and of our own training code."""
    return {
        "python": platform.python_version(),
        **libraries(),
        "results_version": str(RESULTS_VERSION),
    }
