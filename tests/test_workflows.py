"""The workflows, as far as they can be checked without GitHub: structure, and each `run:` line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
import yaml
from review_project import clone, commit, recorded

__all__ = ["clone", "recorded"]
ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
SHA = "a" * 40
EXPRESSIONS = {  # what GitHub would put in their place
    "${{ join(needs.*.result, ' ') }}": "success success success",
    "${{ github.base_ref }}": "main",
    "${{ github.server_url }}/${{ github.repository }}/actions/runs/${{ github.run_id }}": "https://x/1",
    "${{ github.token }}": "token",
}


def load(path: Path) -> dict:
    # BaseLoader: `on` stays a word
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506


def steps(name: str) -> list[dict]:
    jobs = load(ROOT / f".github/workflows/{name}.yml")["jobs"]
    return [step for job in jobs.values() for step in job["steps"] if "run" in step]


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


def shell(folder: Path, step: dict, **environment: str) -> subprocess.CompletedProcess:
    """Run a step's lines as the runner does, with a `make` that installs nothing."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    make = tools / "make"
    make.write_text(
        '#!/bin/sh\nPATH=${PATH#*:}\ncase "$1" in test|lint|audit|.venv/*) set -- -n "$@";; esac\n'
        'exec make -o .venv/installed -o .venv/installed-tests "$@"\n', encoding="utf-8",
    )  # fmt: skip
    make.chmod(0o755)
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    values = dict(step.get("env", {}))
    for key in values:
        for expression, value in EXPRESSIONS.items():
            values[key] = values[key].replace(expression, value)
        assert "${{" not in values[key]
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | values | {"PATH": f"{tools}:{os.environ['PATH']}"} | environment,
    )  # fmt: skip


def test_the_steps_of_ci_run(clone):
    for step in steps("ci"):
        done = shell(clone, step)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_gate_fails_when_a_job_did(clone):
    gate = steps("ci")[-1]
    for result in ("failure", "cancelled", "skipped"):
        assert shell(clone, gate, RESULTS=f"success {result}").returncode == 1


def test_the_review_reaches_the_summary(clone, tmp_path):
    (clone / "README.md").write_text("# other\n", encoding="utf-8")
    commit(clone, "readme")
    summary = tmp_path / "summary.md"
    for step in steps("review"):
        done = shell(clone, step, GITHUB_STEP_SUMMARY=str(summary))
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing changed" in summary.read_text(encoding="utf-8")


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


def test_one_comment_is_made_and_then_updated(tmp_path):
    folder = tmp_path / "project"
    (folder / "review").mkdir(parents=True)
    (folder / ".github").symlink_to(ROOT / ".github")
    text = folder / "review/review.md"
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
            folder, step, GITHUB_EVENT_PATH=str(event), GITHUB_REPOSITORY="o/r",
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
