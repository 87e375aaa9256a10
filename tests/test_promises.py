"""tests/README.md names tests that exist; a test has one name, whichever process collects it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", README)))


def defined_in(file: str) -> set[str]:
    tree = ast.parse((FOLDER / file).read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_is_there(file):
    assert {name for named, name in NAMED if named == file} <= defined_in(file)


def test_every_promise_names_a_test():
    rows = re.findall(r"^\| (?!promise|trouble)(.+) \| (.+) \|$", README, re.MULTILINE)
    assert len(rows) > 30
    assert [promise for promise, holders in rows if "::test_" not in holders] == []


def test_every_mention_is_read():
    assert README.count("::") == len(re.findall(r"`test_\w+\.py::\w+`", README))


def test_a_later_process_finds_the_same_tests(request):
    """Two that share the work compare lists, and stop before the first test if they differ."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-m", "", "-p", "no:cacheprovider"],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    here = {  # without the group that pytest-xdist adds to a name
        item.nodeid.removesuffix(f"@{mark.args[0]}")
        for item in request.session.items
        for mark in item.iter_markers("xdist_group")
    }
    assert request.node.nodeid.partition("@")[0] in here
    assert here - set(found) == set()
