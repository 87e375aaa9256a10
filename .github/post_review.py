"""Keep one comment on a pull request up to date with a review that another workflow wrote.

    python3 .github/post_review.py review/review.md

Runs in a `workflow_run` event, with a token that can write: the text is untrusted data, and which
pull request it belongs to is asked of GitHub, never of the text. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

MARK = "<!-- review of the figures -->"
BOT = "github-actions[bot]"
MOST = 60_000  # characters; GitHub takes 65,536
PAGE = 100


def call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request to GitHub's REST API and return its answer."""
    request = Request(  # noqa: S310 - the runner sets the address
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
        },
    )
    with urlopen(request, timeout=30) as response:  # noqa: S310 - as above
        return json.load(response)


def pull_request(workflow_run: dict[str, Any]) -> int | None:
    """Return the open pull request whose head is what the run was made from, if any."""
    owner = workflow_run["head_repository"]["owner"]["login"]
    query = urlencode({"state": "open", "head": f"{owner}:{workflow_run['head_branch']}"})
    for found in call("GET", f"/pulls?{query}"):
        if found["head"]["sha"] == workflow_run["head_sha"]:
            return found["number"]
    return None


def own_comment(number: int) -> int | None:
    """Return the comment that an earlier run left on a pull request, if any."""
    page = 1
    while comments := call("GET", f"/issues/{number}/comments?per_page={PAGE}&page={page}"):
        for comment in comments:
            if comment["user"]["login"] == BOT and comment["body"].startswith(MARK):
                return comment["id"]
        page += 1
    return None


def main() -> None:
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    number = pull_request(event["workflow_run"])
    if number is None:
        print("no open pull request has this commit as its head any more")
        return
    text = Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")
    if len(text) > MOST:
        text = text[:MOST] + "\n\n… cut here; the whole text is in the run's summary."
    body = {"body": f"{MARK}\n{text.replace('@', '@' + chr(0x200B))}"}  # nobody gets notified
    comment = own_comment(number)
    if comment is None:
        call("POST", f"/issues/{number}/comments", body)
    else:
        call("PATCH", f"/issues/comments/{comment}", body)


if __name__ == "__main__":
    main()
