"""The audit of the pins says what is known, and never passes over what it could not ask."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CLOSED_PORT, ROOT

PINS = """aa==1.0 ; python_version < "3.13" \\
    --hash=sha256:00
b-b==2.0.post1 \\
    --hash=sha256:11
"""
BAD = {"id": "PYSEC-1", "fixed_in": ["1.1"], "withdrawn": None}


class Service(http.server.BaseHTTPRequestHandler):
    """Stands for the index's JSON service; `known` is what it says of each path."""

    known: dict[str, object]

    def do_GET(self) -> None:
        answer = self.known.get(self.path)
        self.send_response(404 if answer is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Return a function that runs the audit of two pins against a service that knows `known`."""
    for folder in ("tests", "studies"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "requirements.txt").write_text("aa==1.0\n", encoding="utf-8")
    (tmp_path / "requirements.txt").write_text(PINS, encoding="utf-8")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def run(known: dict[str, object] | None, *options: str) -> subprocess.CompletedProcess:
        Service.known = known or {}
        here = f"http://127.0.0.1:{server.server_port}"
        return subprocess.run(
            [sys.executable, str(ROOT / ".ci/audit.py"), *options, "--service",
             CLOSED_PORT if known is None else here],
            cwd=tmp_path, env={"no_proxy": "*"}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    yield run
    server.shutdown()
    server.server_close()


def known(first: list[dict], second: list[dict]) -> dict[str, object]:
    return {
        "/aa/1.0/json": {"vulnerabilities": first},
        "/b-b/2.0.post1/json": {"vulnerabilities": second},
    }


def test_nothing_known_passes_and_says_how_many_were_asked(audit):
    done = audit(known([], [BAD | {"withdrawn": "2024-01-01"}]), "--strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 of 2 pinned packages checked, 0 vulnerabilities known\n"


def test_a_known_vulnerability_fails_with_its_name_and_remedy(audit):
    done = audit(known([BAD], []))
    assert done.returncode == 1
    assert done.stdout.startswith("aa 1.0: PYSEC-1, mended in 1.1\n2 of 2")


@pytest.mark.parametrize("service", [None, {}, {"/aa/1.0/json": {"info": {}}}])
def test_a_service_that_does_not_answer_is_no_pass(audit, service):
    done = audit(service)
    assert done.returncode == 0
    assert "NOT CHECKED" in done.stdout
    assert "2 packages (aa 1.0, b-b 2.0.post1)" in done.stdout
    assert "vulnerabilities known" not in done.stdout
    assert audit(service, "--strict").returncode == 1


def test_a_package_that_the_service_lacks_is_named(audit):
    some = known([], [])
    del some["/aa/1.0/json"]
    done = audit(some)
    assert "1 of 2 pinned packages checked, 0 vulnerabilities known" in done.stdout
    assert "1 packages (aa 1.0)" in done.stdout


def test_every_line_that_pins_is_read():
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        from audit import pins
    finally:
        sys.path.pop(0)
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith((" ", "#"))]
    assert {name for name, _ in pins([text])} == {line.split("==")[0] for line in lines if line}
    assert {name for name, _ in pins([text])} >= {"dvc", "keras", "numpy", "tensorflow"}
