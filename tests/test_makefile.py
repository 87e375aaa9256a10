"""The Makefile's targets explain themselves, and its settings are the committed ones."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT


def make(*arguments: str) -> str:
    """Run make as a shell does, not as a part of the make that may run the tests."""
    ours = ("MAKE", "MFLAGS", "DATASET", "SETTINGS")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_make_alone_lists_every_target_with_its_help():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    shown = dict(line.split(maxsplit=2)[1:] for line in make("-s").splitlines())
    assert set(shown) == set(phony)
    assert "run" in shown
    assert all(len(line) > 10 for line in shown.values())


def test_a_run_on_mnist_uses_the_committed_epochs_and_batch():
    committed = subprocess.run(
        ["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if committed.returncode:
        pytest.skip("not a git repository: the committed parameters are unknown")
    params = yaml.safe_load(committed.stdout)
    settings = make("-s", "--eval=show: ; @echo $(SETTINGS)", "show", "DATASET=mnist").split()[1::2]
    assert settings == [
        "dataset=mnist",
        f"epochs={params['epochs']}",
        f"train.batch_size={params['train']['batch_size']}",
    ]


def test_the_report_is_opened_where_there_is_one(pipeline):
    """`BROWSER` is what Python's `webbrowser` starts."""
    command = ("make", "-s", "-o", ".venv/installed", "report")
    done = pipeline.run(*command, BROWSER="echo opened %s")
    page = pipeline.path("plots/report.html").resolve()
    assert f"opened {page.as_uri()}" in done.stdout


def test_without_a_report_it_says_how_to_make_one(project):
    done = project.run("make", "-s", "-o", ".venv/installed", "report", BROWSER="echo", status=2)
    assert done.stdout == "error: plots/report.html is missing; make run makes it\n"
