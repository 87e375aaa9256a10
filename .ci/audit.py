"""Are vulnerabilities known of the pinned requirements?

    python .ci/audit.py [--strict]      (`make audit`)

Asks the package index's JSON service for each pinned version, as pip-audit does. pip-audit itself
says "No known vulnerabilities found" where the service knows nothing, behind a mirror for one;
here what could not be asked is said, and with --strict it is a failure.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

SERVICE = "https://pypi.org/pypi"
FILES = ("requirements.txt", "tests/requirements.txt", "studies/requirements.txt")
TIMEOUT = 20  # seconds
LARGEST = 2**24  # bytes of an answer
AT_ONCE = 8
Pin = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Look for known vulnerabilities of the pins.")
    parser.add_argument("--strict", action="store_true", help="fail when a pin cannot be checked")
    parser.add_argument("--service", default=SERVICE, help=f"by default {SERVICE}")
    arguments = parser.parse_args()
    found = pins(Path(name).read_text(encoding="utf-8") for name in FILES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(found, pool.map(partial(ask, arguments.service), found), strict=True))
    unknown = [f"{name} {version}" for (name, version), told in answers.items() if told is None]
    known = [line for pin, told in answers.items() for line in lines(pin, told or [])]
    for line in known:
        print(line)
    if len(unknown) < len(found):
        print(f"{len(found) - len(unknown)} of {len(found)} pinned packages checked, "
              f"{len(known)} vulnerabilities known")  # fmt: skip
    if unknown:
        shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        print(f"NOT CHECKED, {arguments.service} has no answer: {len(unknown)} packages ({shown})")
    sys.exit(1 if known or (unknown and arguments.strict) else 0)


def pins(texts: Iterable[str]) -> list[Pin]:
    """Return the packages and versions that requirements files pin, each once."""
    found = (re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE) for text in texts)
    return sorted({pin for some in found for pin in some})


def ask(service: str, pin: Pin) -> list[dict] | None:
    """Return what is known against a version; None when the service does not say."""
    name, version = pin
    try:
        with urlopen(f"{service}/{name}/{version}/json", timeout=TIMEOUT) as answer:  # noqa: S310 -- https, or the test's own server
            return json.loads(answer.read(LARGEST))["vulnerabilities"]
    except (URLError, OSError, ValueError, KeyError, TypeError):
        return None


def lines(pin: Pin, vulnerabilities: list[dict]) -> list[str]:
    """Return a line for each vulnerability that was not withdrawn."""
    name, version = pin
    return [
        f"{name} {version}: {entry['id']}, mended in {', '.join(entry['fixed_in']) or 'no version'}"
        for entry in vulnerabilities
        if not entry.get("withdrawn")
    ]


if __name__ == "__main__":
    main()
