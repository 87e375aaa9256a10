"""The workflows, as far as they can be checked without GitHub: schema, and each `run:` line.

Every `run:` step runs as the runner would run it, in a clone. Two things differ: the packages are
there already (pip checks them against the pins and finds nothing to download), and of the tests
that `make test` runs in CI one file is run here, for this file is itself among them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
import yaml
from conftest import ROOT, Project
from review_project import branch, recorded

__all__ = ["branch", "recorded"]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
SHA = "a" * 40
EVENT = {"pull_request": {"base": {"ref": "main"}, "head": {"sha": SHA}}, "number": 7}
EXPRESSIONS = {  # what GitHub would put in their place
    "${{ join(needs.*.result, ' ') }}": "success success success",
    "${{ github.base_ref }}": EVENT["pull_request"]["base"]["ref"],
    "${{ github.server_url }}": "https://github.test",
    "${{ github.repository }}": "owner/name",
    "${{ github.run_id }}": "12",
    "${{ github.token }}": "token",
}


def load(path: Path) -> dict:
    # BaseLoader: `on` stays a word
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506


def steps(name: str, job: str | None = None) -> list[dict]:
    """Return the `run:` steps of a workflow's jobs, or of one job."""
    jobs = load(ROOT / f".github/workflows/{name}.yml")["jobs"]
    chosen = jobs.values() if job is None else [jobs[job]]
    return [step for one in chosen for step in one["steps"] if "run" in step]


def check_schema(schema: str, path: Path) -> None:
    """Hold a file to a schema that check-jsonschema carries with it."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_schema(path, tmp_path):
    check_schema("vendor.github-workflows", path)
    bad = tmp_path / "bad.yml"
    bad.write_text(path.read_text(encoding="utf-8").replace("runs-on:", "run-on:"), "utf-8")
    with pytest.raises(AssertionError):
        check_schema("vendor.github-workflows", bad)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_structure(path):
    text, workflow = path.read_text(encoding="utf-8"), load(path)
    assert "permissions" in workflow
    assert "pull_request_target" not in text
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
                assert re.search(re.escape(step["uses"]) + r"  # v\d", text)
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] == "false"
                assert "ref" not in step["with"]
            assert "${{" not in step.get("run", "")  # values reach a shell as variables only


def test_only_the_trusted_workflow_can_write_and_it_runs_on_no_untrusted_event():
    for path in FILES:
        workflow = load(path)
        writes = "write" in json.dumps([workflow["permissions"], workflow["jobs"]]).split('"')
        assert writes == (list(workflow["on"]) == ["workflow_run"])


def shell(project: Project, step: dict, **environment: str) -> subprocess.CompletedProcess:
    """Run a step's lines as the runner does, in an environment whose packages are there."""
    venv = project.path(".venv")
    if not venv.exists():  # a folder of links: the Makefile's stamps land in the clone
        venv.mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (venv / name).symlink_to(Path(sys.prefix) / name)
    values = dict(step.get("env", {}))
    for key in values:
        for expression, value in EXPRESSIONS.items():
            values[key] = values[key].replace(expression, value)
        assert "${{" not in values[key]
    event = project.folder.parent / "event.json"
    if not event.exists():
        event.write_text(json.dumps(EVENT), encoding="utf-8")
    return project.run(
        "bash", "-e", "-o", "pipefail", "-c", step["run"], status=None,
        **{"GITHUB_EVENT_PATH": str(event), "CI": "true", **PIP, **values, **environment},
    )  # fmt: skip


# pip is to look at what is installed, and to change nothing.
PIP = {"PIP_NO_INDEX": "1", "PIP_DRY_RUN": "1", "PIP_FIND_LINKS": ""}
in_venv = pytest.mark.skipif(
    not (Path(sys.prefix) / "pyvenv.cfg").exists(), reason="the tests run outside of an environment"
)


@in_venv
@pytest.mark.parametrize("job", ["lint", "lock", "gate"])
def test_the_steps_of_ci_run(branch, job):
    for step in steps("ci", job):
        done = shell(branch, step)
        if step["run"] == "make audit AUDIT=--strict":  # without a network it must not pass
            assert done.returncode != 0
            assert "NOT CHECKED" in done.stdout
        else:
            assert done.returncode == 0, done.stdout + done.stderr
    assert branch.path(".venv/installed").exists() or job == "gate"


@in_venv
def test_the_tests_of_ci_run(branch):
    (step,) = steps("ci", "test")
    stamps = set(re.findall(r"\$\(VENV\)/(installed[\w-]*)", branch.read("Makefile")))
    shell(
        branch, {"run": f"cd .venv && touch {' '.join(sorted(stamps))}"}
    )  # `lint` shows the install
    done = shell(branch, step, PYTEST_ADDOPTS="tests/test_statistics.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[100%]" in done.stdout


@in_venv
def test_lint_fails_where_it_should(branch):
    branch.path("stages/files.py").write_text("import os, sys\n", encoding="utf-8")
    step = steps("ci", "lint")[0]
    done = shell(branch, step)
    assert done.returncode != 0
    assert "F401" in done.stdout


@in_venv
def test_the_lock_check_fails_on_a_stale_lock(branch):
    branch.set({"cnn.dense": 9})
    check = steps("ci", "lock")[-1]
    assert "dvc.lock is stale: train_cnn" in shell(branch, check).stderr


def test_the_gate_fails_when_a_job_did(branch):
    (gate,) = steps("ci", "gate")
    for result in ("failure", "cancelled", "skipped"):
        assert shell(branch, gate, RESULTS=f"success {result}").returncode == 1


@in_venv
def test_the_review_reaches_the_summary(branch, tmp_path):
    """As `actions/checkout` leaves it: no branch checked out, the base as `origin/main`."""
    branch.path("README.md").write_text("# other\n", encoding="utf-8")
    branch.commit("readme")
    branch.run("git", "checkout", "--quiet", "--detach")
    branch.run("git", "branch", "--quiet", "-D", "main", "change")
    summary = tmp_path / "summary.md"
    for step in steps("review"):
        done = shell(branch, step, GITHUB_STEP_SUMMARY=str(summary))
        assert done.returncode == 0, done.stdout + done.stderr
    text = summary.read_text(encoding="utf-8")
    assert "Review against `origin/main`" in text
    assert "Nothing changed" in text


class GitHub(BaseHTTPRequestHandler):
    """The few requests of GitHub's API that the comment needs, on a list of comments."""

    comments: list[dict]

    def answer(self, value: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def body(self) -> dict:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self):
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path.endswith("/pulls"):
            known = query["head"] == "fork:a&b"
            self.answer([{"number": 7, "head": {"sha": SHA}}] if known else [])
        else:
            first = (int(query["page"]) - 1) * int(query["per_page"])
            self.answer(self.comments[first : first + int(query["per_page"])])

    def do_POST(self):
        assert self.path.endswith("/issues/7/comments")
        bot = {"id": 1000, "user": {"login": "github-actions[bot]"}}
        self.comments.append(bot | self.body())
        self.answer({})

    def do_PATCH(self):
        assert self.path.endswith("/issues/comments/1000")
        self.comments[-1] |= self.body()
        self.answer({})

    def log_message(self, format, *arguments):  # noqa: A002
        pass


def test_one_comment_is_made_and_then_updated(branch, tmp_path):
    text = branch.path("review/review.md")
    text.parent.mkdir()
    GitHub.comments = [
        {"id": i, "user": {"login": "person"}, "body": "<!-- review of the figures -->\nmine"}
        for i in range(150)  # more than a page, and not to be touched
    ]
    server = HTTPServer(("127.0.0.1", 0), GitHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run = {"head_repository": {"owner": {"login": "fork"}}, "head_branch": "a&b", "head_sha": SHA}

    def post(**changes: str) -> None:
        event = tmp_path / "event.json"
        event.write_text(json.dumps({"workflow_run": run | changes}), encoding="utf-8")
        (step,) = steps("review-comment")
        done = shell(
            branch, step, GITHUB_EVENT_PATH=str(event), GITHUB_REPOSITORY="o/r",
            GITHUB_API_URL=f"http://127.0.0.1:{server.server_port}", no_proxy="127.0.0.1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    try:
        text.write_text("first, @all", encoding="utf-8")
        post()
        text.write_text("second" + "x" * 70_000, encoding="utf-8")
        post()
        text.write_text("old commit", encoding="utf-8")
        post(head_sha="b" * 40)
    finally:
        server.shutdown()
        server.server_close()
    assert len(GitHub.comments) == 151
    body = GitHub.comments[-1]["body"]
    assert body.startswith("<!-- review of the figures -->\nsecond")
    assert len(body) < 65_536
    assert all(comment["body"].endswith("mine") for comment in GitHub.comments[:-1])
