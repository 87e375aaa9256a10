"""The documentation: links, names and generated tables are right, and its commands run."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import IDENTITY, ROOT

PAGES = sorted(
    path
    for folder in (".", "docs", "studies", "benchmarks", "tests", "data")
    for path in (ROOT / folder).glob("*.md")
)
TEXT = {path: path.read_text(encoding="utf-8") for path in PAGES}
GENERATED = ("data/", "plots/", "review/", "studies/results/")  # exist only after a command
NAMED_FILE = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|yaml|md|json|toml|jinja|txt|in))`")
PLACEHOLDER = re.compile(r"\b[A-Z]\b|NAME|MODEL|STUDY|KEY|test_Y")
COMMAND = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_pages_are_short():
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 150
    assert sum(len(text.splitlines()) for text in TEXT.values()) <= 900


def test_generated_blocks_are_those_of_the_recorded_results():
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_check_names_a_stale_block(tmp_path):
    from tools.docs import BLOCK

    page = ROOT / "README.md"
    name, block = BLOCK.search(TEXT[page]).group(2, 3)
    read = ("tools/", "stages/", "studies/", "benchmarks/", "metrics/", "docs/")
    for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if path.startswith(read) or "/" not in path:
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / path).read_bytes())
    stale = TEXT[page].replace(block, block.replace("9", "8"))
    (tmp_path / "README.md").write_text(stale, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert name in done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXT[page]):
        if not link.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / link).exists(), link
    named = re.findall(NAMED_FILE, TEXT[page]) if page.name != "CHANGELOG.md" else []
    for name in named:  # the change log names files that are gone
        if not name.startswith(GENERATED) and not PLACEHOLDER.search(name):
            assert any((base / name).exists() for base in (ROOT, page.parent)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_targets_and_modules_exist(page):
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT[page], re.MULTILINE)) <= targets
    for module in re.findall(r"python -m ((?:stages|tools|studies|benchmarks)[\w.]*)", TEXT[page]):
        assert find_spec(module.rstrip(".")), module


# The other documented commands train for minutes, or need a network, a remote or a browser.
SHORT = (
    "dvc exp show", "dvc metrics diff", "dvc params diff", "dvc plots show", "dvc status",
    "python -m tools.results", "python -m tools.docs --check",
)  # fmt: skip


@pytest.mark.extra
def test_short_commands_run_as_documented(pipeline, tmp_path):
    lines = {
        line.split("  #")[0].strip()
        for text in TEXT.values()
        for block in COMMAND.findall(text.replace("\\\n", " "))
        for line in block.splitlines()
    }
    commands = sorted(line for line in lines if line.startswith(SHORT) and "--open" not in line)
    assert len(commands) >= 3
    project = pipeline.copy_to(tmp_path / "copy")
    for command in commands:
        done = project.run("bash", "-c", command, status=None, **IDENTITY)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_a_clone_with_windows_line_ends_has_the_same_dependencies(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "-c", "core.autocrlf=true", str(ROOT), str(clone)], check=True
    )
    status = ["git", "-C", str(clone), "status", "--porcelain"]
    assert subprocess.check_output(status, text=True) == ""
    for path in [*Path(clone / "stages").rglob("*.py"), clone / "params.yaml"]:
        assert b"\r\n" not in path.read_bytes(), path
