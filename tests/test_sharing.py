"""The commands in docs/reviewing-and-sharing.md, run as they stand there.

A bare repository and a folder stand for the git server and the DVC remote.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import IDENTITY, ROOT, Project, set_keys
from review_project import branch, work

__all__ = ["branch", "work"]
pytestmark = pytest.mark.extra
TEXT = (ROOT / "docs/reviewing-and-sharing.md").read_text(encoding="utf-8")
MODEL = "data/models/lstm.keras"


def block(heading: str, position: int) -> str:
    """Return a shell block of a section."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)[position]


def run(project: Project, commands: str, **words: str) -> str:
    """Run commands, with these words replaced, and `make` without an installation."""
    for word, own in words.items():
        assert word in commands
        commands = commands.replace(word, own)
    if "make " in commands and not project.path(".venv").exists():
        project.path(".venv").symlink_to(sys.prefix)
    commands = commands.replace("make ", "make -o .venv/installed ")
    done = project.run("bash", "-e", "-c", commands, **IDENTITY)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_teammate_gets_what_was_shared(pipeline, clone, tmp_path):
    server = tmp_path / "server.git"
    pipeline.run("git", "clone", "--quiet", "--bare", str(pipeline.folder), str(server))
    author, mate = clone, pipeline.at(tmp_path / "mate")
    author.run("git", "remote", "add", "origin", str(server))
    author.run("git", "push", "--quiet", "--set-upstream", "origin", "main")
    pipeline.run("git", "clone", "--quiet", str(server), str(mate.folder))

    committed = author.path(MODEL).read_bytes()
    once, experiment, version, mates = re.split(
        "^(?=dvc exp push|git tag|# A teammate)", block("Sharing", 0), flags=re.M
    )
    run(author, once, **{"s3://bucket/path": str(tmp_path / "storage")})
    author.run("dvc", "exp", "run", "-n", "wider", "-S", "lstm.units=[24]", **IDENTITY)
    tried = author.path(MODEL).read_bytes()
    assert tried != committed
    run(author, experiment, EXPERIMENT="wider")
    run(author, version)

    _, get_run, get_experiment, get_model = mates.splitlines()
    run(mate, get_run)
    assert mate.path(MODEL).read_bytes() == committed
    assert "up to date" in mate.dvc("status", "dvc.yaml")
    run(mate, get_experiment, EXPERIMENT="wider")
    assert mate.path(MODEL).read_bytes() == tried
    assert yaml.safe_load(mate.read("params.yaml"))["lstm"]["units"] == [24]

    elsewhere = author.at(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    run(elsewhere, get_model, URL=str(server))
    cnn = author.path("data/models/cnn.keras").read_bytes()
    assert elsewhere.path("cnn.keras").read_bytes() == cnn


@pytest.mark.slow
def test_a_conflict_in_dvc_lock_is_solved_by_repro(work):
    ours, theirs = {"lstm.units": [24]}, {"cnn.dense": 9}
    for changes, name in ((ours, "change"), (theirs, "theirs")):
        work.run("git", "checkout", "--quiet", "-B", name, "main")
        work.set(changes)
        work.dvc("repro")
        work.commit(name)
    work.run("git", "checkout", "--quiet", "change")
    work.run("git", "merge", "theirs", status=1, **IDENTITY)
    assert "<<<<<<<" in work.read("dvc.lock")
    text = yaml.safe_dump(set_keys(work.document, ours | theirs), sort_keys=False)
    work.path("params.yaml").write_text(text, encoding="utf-8")
    output = run(work, block("Sharing", 1))
    assert re.findall(r"Running stage '(\w+)'", output) == ["evaluate", "report"]
    assert "up to date" in work.dvc("status", "dvc.yaml")
    assert not work.run("git", "status", "--short").stdout
    assert len(work.run("git", "log", "-1", "--format=%P").stdout.split()) == 2


def test_the_gitlab_job_reviews_a_detached_checkout(branch):
    path = ROOT / "extras/gitlab-ci.yml"
    branch.run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.gitlab-ci",
               str(path))  # fmt: skip
    job = yaml.safe_load(path.read_text(encoding="utf-8"))["review"]
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    branch.run("git", "checkout", "--quiet", "--detach")
    branch.run("git", "branch", "--quiet", "-D", "main", "change")
    for line in job["script"]:
        run(branch, line, **{"$CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"})
    (kept,) = job["artifacts"]["paths"]
    assert "Nothing changed" in branch.read(f"{kept}review.md")


def shape(text: str) -> str:
    """Return a text with `#` for everything that depends on the processor."""
    text = re.sub(r"p (=|&lt;) |(not )?significant [(]|[▲▼=+−]|better|worse", "#", text)
    text = re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", re.sub(r"\([0-9a-f]{7}\)", "(#)", text))
    return " ".join(text.split())


@pytest.mark.slow
def test_the_example_of_a_review_is_what_its_commands_give(branch):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    branch.path("params.yaml").write_text(text, encoding="utf-8")
    branch.commit("the committed parameters")
    run(branch, block("Reviewing a change", 0))
    section = TEXT.split("\n## Reviewing a change\n")[1].split("\n## ")[0]
    shown = "\n".join(line[2:] for line in section.splitlines() if line.startswith(">"))
    made = Path(branch.path("review/review.md")).read_text("utf-8").split("<details>")[0]
    assert shape(made) == shape(shown)
    accuracies = re.compile(r"([\d.]+) → ([\d.]+) %")
    for old, new in zip(accuracies.findall(shown), accuracies.findall(made), strict=True):
        assert [float(x) for x in old] == pytest.approx([float(x) for x in new], abs=5)
