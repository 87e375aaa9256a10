"""The workflows, as far as they can be checked without GitHub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from review_project import branch

__all__ = ["branch"]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
SHA = "a" * 40
# Stands in for GitHub's command: lists two pull requests, and keeps the arguments and the text of
# the comment that it is told to write.
GH = """#!/bin/sh
if [ "$2" = list ]; then
  printf '%s\\n' "$PULL_REQUESTS"
else
  printf '%s\\n' "$@" > arguments
  cp comment.md posted.md
fi
"""


def load(path: Path) -> dict:
    # BaseLoader keeps `on` a string
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506


def steps(name: str, job: str) -> list[dict]:
    """Return the `run:` steps of one job of a workflow."""
    jobs = load(ROOT / f".github/workflows/{name}.yml")["jobs"]
    return [step for step in jobs[job]["steps"] if "run" in step]


def shell(
    step: dict, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run a step's lines in `folder` as the runner does."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_workflow_follows_githubs_schema(path):
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows",
         str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_workflow_is_safe(path):
    text, workflow = path.read_text(encoding="utf-8"), load(path)
    assert "permissions" in workflow
    assert "pull_request_target" not in text
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:  # pinned by commit, with the version as a comment
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
                assert re.search(re.escape(step["uses"]) + r"  # v\d", text)
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] == "false"
                assert "ref" not in step["with"]
            assert "${{" not in step.get("run", "")  # values reach the shell as variables only


def test_only_the_trusted_workflow_can_write_and_it_checks_out_nothing():
    for path in FILES:
        workflow = load(path)
        writes = "write" in json.dumps([workflow["permissions"], workflow["jobs"]]).split('"')
        assert writes == (list(workflow["on"]) == ["workflow_run"])
        assert writes == ("actions/checkout" not in path.read_text(encoding="utf-8") and writes)


def test_every_command_of_the_workflows_exists():
    for path in FILES:
        for job in load(path)["jobs"].values():
            for step in job["steps"]:
                for line in step.get("run", "").splitlines():
                    if line.startswith("make "):
                        subprocess.run(
                            [*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True
                        )
                    if module := re.search(r"-m (tools\.\w+)", line):
                        assert (ROOT / module[1].replace(".", "/")).with_suffix(".py").exists()


@pytest.mark.parametrize(
    ("results", "status"),
    [("success success", 0), ("success failure", 1), ("cancelled success", 1), ("skipped", 1)],
)
def test_the_gate_passes_only_if_every_job_did(tmp_path, results, status):
    (gate,) = steps("ci", "gate")
    assert shell(gate, tmp_path, {"RESULTS": results}).returncode == status


@pytest.fixture
def post(tmp_path):
    """Return a function that runs the comment's step with a stand-in for GitHub's command."""
    (step,) = steps("review-comment", "comment")
    program = tmp_path / "bin/gh"
    program.parent.mkdir()
    program.write_text(GH, encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "review").mkdir()

    def run(pull_requests: str = f"{'b' * 40} 6\n{SHA} 7") -> subprocess.CompletedProcess:
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "HEAD_SHA": SHA, "PULL_REQUESTS": pull_requests}
        return shell(step, tmp_path, variables)

    return run


def test_the_comment_goes_to_the_pull_request_with_the_reviewed_commit(post, tmp_path):
    (tmp_path / "review/review.md").write_text("hello @all " + "x" * 70_000, encoding="utf-8")
    done = post()
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").split()
    assert arguments[:3] == ["pr", "comment", "7"]
    assert {"--edit-last", "--create-if-none"} < set(arguments)
    text = (tmp_path / "posted.md").read_text(encoding="utf-8")
    assert text.startswith("hello @\u200ball")
    assert len(text) < 65_536  # GitHub's limit


def test_no_comment_without_an_open_pull_request_or_from_a_link(post, tmp_path):
    review = tmp_path / "review/review.md"
    review.write_text("text", encoding="utf-8")
    assert post(f"{'b' * 40} 6").returncode == 0
    review.unlink()
    review.symlink_to("/etc/hostname")
    assert post().returncode == 1
    assert not (tmp_path / "posted.md").exists()


@pytest.mark.extra
def test_the_review_job_works_on_a_detached_checkout(branch, tmp_path):
    """As `actions/checkout` leaves it: no branch checked out, the base only as `origin/main`."""
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    branch.run("git", "checkout", "--quiet", "--detach")
    branch.run("git", "branch", "--quiet", "-D", "main", "change")
    branch.path(".venv").symlink_to(sys.prefix)
    summary = tmp_path / "summary.md"
    for step in steps("review", "review"):
        command = step["run"].replace("make", "make -o .venv/installed")  # the tests' own packages
        variables = {"BASE": "origin/main", "CURVES_URL": "", "GITHUB_STEP_SUMMARY": str(summary)}
        branch.run("bash", "-e", "-o", "pipefail", "-c", command, **variables)
    text = summary.read_text(encoding="utf-8")
    assert "Review against `origin/main`" in text
