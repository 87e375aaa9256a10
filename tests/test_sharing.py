"""What the README tells people who work together, run as it stands there.

A bare repository and a folder stand for the git server and the DVC remote.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import IDENTITY, ROOT, Project, set_keys
from review_project import branch, recorded, share_cache, work
from test_workflows import check_schema, in_venv, shell

__all__ = ["branch", "recorded", "work"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "data/models/lstm.keras"


def block(heading: str, place: int, language: str = "sh") -> str:
    """Return a code block of one of the README's sections."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)[place]


def run(project: Project, commands: str, **words: str) -> str:
    """Run lines of the README, with one's own names in the place of the words written LARGE."""
    for word, own in words.items():
        assert word in commands
        commands = commands.replace(word, own)
    done = project.run("bash", "-e", "-c", commands, **IDENTITY)
    return done.stdout + done.stderr


@pytest.fixture
def author(recorded: Project, tmp_path: Path) -> Project:
    """A clone of a bare repository, with the data at hand."""
    bare = tmp_path / "server.git"
    recorded.run("git", "clone", "--quiet", "--bare", str(recorded.folder), str(bare))
    made = recorded.at(tmp_path / "author")
    recorded.run("git", "clone", "--quiet", str(bare), str(made.folder))
    share_cache(made, recorded)
    made.dvc("checkout")
    return made


@pytest.fixture
def mate(author: Project, tmp_path: Path) -> Project:
    """Another clone of the same, made before anything was shared, with a cache of its own."""
    made = author.at(tmp_path / "mate")
    author.run("git", "clone", "--quiet", str(tmp_path / "server.git"), str(made.folder))
    return made


def test_what_one_shares_a_teammate_gets(author, mate, tmp_path):
    committed = author.path(MODEL).read_bytes()
    once, experiment, version = re.split(
        "^(?=dvc exp push|git tag)", block("Sharing", 0), flags=re.M
    )
    run(author, once, **{"s3://bucket/path": str(tmp_path / "storage")})
    author.run("dvc", "exp", "run", "-n", "wider", "-S", "lstm.units=[24]", **IDENTITY)
    tried = author.path(MODEL).read_bytes()
    assert tried != committed
    run(author, experiment, EXPERIMENT="wider")
    run(author, version)

    get_run, get_experiment, get_model = block("Sharing", 1).splitlines()
    assert not mate.path(MODEL).exists()
    run(mate, get_run)
    assert mate.path(MODEL).read_bytes() == committed
    assert "up to date" in mate.dvc("status", "dvc.yaml")
    run(mate, get_experiment, EXPERIMENT="wider")
    assert mate.path(MODEL).read_bytes() == tried
    assert yaml.safe_load(mate.read("params.yaml"))["lstm"]["units"] == [24]

    nowhere = author.at(tmp_path / "nowhere")
    nowhere.folder.mkdir()
    run(nowhere, get_model, URL=str(tmp_path / "server.git"))
    assert (
        nowhere.path("cnn.keras").read_bytes() == author.path("data/models/cnn.keras").read_bytes()
    )


def test_a_conflict_in_the_lock_is_solved_as_the_readme_says(work):
    ours, theirs = {"lstm.units": [24]}, {"cnn.dense": 9}
    work.set(ours)
    work.dvc("repro")
    work.commit("ours")
    work.run("git", "checkout", "--quiet", "-b", "theirs", "main")
    work.set(theirs)
    work.dvc("repro")
    work.commit("theirs")
    work.run("git", "checkout", "--quiet", "change")
    work.run("git", "merge", "theirs", status=1, **IDENTITY)
    assert "<<<<<<<" in work.read("dvc.lock")
    text = yaml.safe_dump(set_keys(work.document, ours | theirs), sort_keys=False)
    work.path("params.yaml").write_text(text, encoding="utf-8")
    said = run(work, block("Sharing", 2))
    assert re.findall(r"Running stage '(\w+)'", said) == ["evaluate", "report"]
    assert "up to date" in work.dvc("status", "dvc.yaml")
    assert not work.run("git", "status", "--short").stdout
    assert len(work.run("git", "log", "-1", "--format=%P").stdout.split()) == 2


@in_venv
def test_gitlab(branch, tmp_path):
    text = block("Reviewing a change", -1, "yaml")
    path = tmp_path / ".gitlab-ci.yml"
    path.write_text(text, encoding="utf-8")
    check_schema("vendor.gitlab-ci", path)
    job = yaml.safe_load(text)["review"]
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    branch.run("git", "checkout", "--quiet", "--detach")
    branch.run("git", "branch", "--quiet", "-D", "main", "change")
    for line in job["script"]:
        done = shell(branch, {"run": line}, CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main")
        assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = job["artifacts"]["paths"]
    assert "Nothing changed" in branch.read(f"{kept}review.md")


# --- the example of a review --------------------------------------------------------------


def shape(text: str) -> str:
    """Return a text with `#` for each number, and for what a small difference turns round."""
    text = re.sub(r"[▲▼=]|better|worse", "#", text)
    text = re.sub(r"\d+(\.\d+)?(e-\d+)?", "#", re.sub(r"\([0-9a-f]{7}\)", "(#)", text))
    return " ".join(text.split())


@pytest.mark.slow
@in_venv
def test_the_example_of_a_review_is_what_its_commands_give(branch):
    """Figures may differ a little between kinds of processor, hence some room."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    branch.path("params.yaml").write_text(text, encoding="utf-8")
    branch.commit("the parameters as they are")
    done = shell(branch, {"run": block("Reviewing a change", 0)}, **IDENTITY)
    assert done.returncode == 0, done.stdout + done.stderr
    section = README.split("\n## Reviewing a change\n")[1].split("\n## ")[0]
    shown = "\n".join(line[2:] for line in section.splitlines() if line.startswith(">"))
    made = branch.read("review/review.md").split("<details>")[0]
    assert shape(made) == shape(shown)
    accuracies = r"([\d.]+) → ([\d.]+) %"
    for was, is_now in zip(
        re.findall(accuracies, shown), re.findall(accuracies, made), strict=True
    ):
        assert [float(x) for x in was] == pytest.approx([float(x) for x in is_now], abs=5)
