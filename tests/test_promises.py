"""tests/README.md names tests that exist; a test has one name, whichever process collects it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WITH_RAY

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


def test_two_processes_share_the_tests_by_file_and_one_has_those_with_a_ray(tmp_path):
    """pytest-xdist alone would part a file's tests, each half setting up what both need."""
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").touch()
    tests = "\n".join(
        f"def test_{i}(worker_id): open('log', 'a').write(__name__ + ' ' + worker_id + '\\n')"
        for i in range(8)
    )
    files = ["test_a", "test_b", "test_c", *WITH_RAY]
    for name in files:
        (tmp_path / f"{name}.py").write_text(tests, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2"], cwd=tmp_path, check=True, capture_output=True
    )
    log = [line.split() for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    workers = {name: {worker for file, worker in log if file == name} for name in files}
    assert len(log) == 8 * len(files)
    assert all(len(found) == 1 for found in workers.values())
    assert set.union(*workers.values()) == {"gw0", "gw1"}
    assert len(set.union(*(workers[name] for name in WITH_RAY))) == 1


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
    here = {item.nodeid for item in request.session.items}
    assert request.node.nodeid in here
    assert here - set(found) == set()
