"""The Makefile's help, settings and `make clean`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from conftest import ROOT

OWN = ("data/my.npz", "data/raw/my.npz", "data/raw/my.npz.dvc", "data/models/mine.keras",
       "data/prepared/mine.npz", "data/predictions/mine.csv", "data/export/notes.txt",
       "plots/mine.png")  # fmt: skip
# Generated files that `make clean` keeps: they are expensive, or DVC's own.
KEPT = (".dvc/", "studies/trials/", "studies/results/", "__pycache__/")


def make(*arguments: str) -> str:
    """Run make without the variables of the make that may run the tests."""
    ours = ("MAKE", "MFLAGS", "DATASET", "SETTINGS")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_make_alone_lists_every_target_with_its_help():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    shown = dict(line.split(maxsplit=2)[1:] for line in make("-s").splitlines())
    assert list(shown) == phony
    assert all(len(line) > 10 for line in shown.values())


def test_a_study_asks_unless_yes_is_set():
    assert "--yes" in make("-n", "study", "YES=1")
    assert "--yes" not in make("-n", "study", "YES=")


def test_clean_removes_what_the_pipeline_made_and_no_file_of_the_user(clone):
    clone.module("tools.review", "main")
    for name in OWN:
        clone.path(name).parent.mkdir(parents=True, exist_ok=True)
        clone.path(name).write_text("mine", encoding="utf-8")
    clone.run("make", "-o", ".venv/installed", "clean")
    status = clone.run("git", "status", "--porcelain", "--ignored", "-uall").stdout.splitlines()
    left = {line[3:] for line in status if not any(part in line for part in KEPT)}
    assert left == set(OWN)


def test_clean_needs_no_git(clone):
    """An outer repository that ignores the project's folder, or none, changes nothing."""
    assert clone.path("data/models/cnn.keras").exists()
    shutil.rmtree(clone.path(".git"))
    clone.path("data/raw/my.npz").write_text("mine", encoding="utf-8")
    clone.run("make", "-o", ".venv/installed", "clean")
    assert clone.path("data/raw/my.npz").exists()
    assert clone.path("Makefile").exists()
    assert not clone.path("data/models").exists()
    assert not clone.path("data/predictions").exists()


def test_two_installations_never_run_at_once():
    assert re.search(r"^\.NOTPARALLEL:$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_report_opens_the_page(pipeline):
    """Python's `webbrowser` starts the program in `BROWSER`."""
    command = ("make", "-s", "-o", ".venv/installed", "report")
    done = pipeline.run(*command, BROWSER="echo opened %s")
    page = pipeline.path("plots/report.html").resolve()
    assert f"opened {page.as_uri()}" in done.stdout


def test_report_without_a_page_says_how_to_create_one(project):
    done = project.run("make", "-s", "-o", ".venv/installed", "report", BROWSER="echo", status=2)
    assert done.stdout == "error: there is no report yet; make run creates one\n"
