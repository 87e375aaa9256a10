"""tests/README.md names tests that exist."""

from __future__ import annotations

import ast
import re
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
