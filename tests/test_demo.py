"""The demo in a browser: digits drawn by mouse or finger are recognized, without a network."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from conftest import Project
from test_plots_browser import CHROMIUM, PATIENCE, browser  # noqa: F401 -- a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.extra
MNIST = Path(os.environ.get("KERAS_HOME", "/nowhere"), "datasets/mnist.npz")
STROKES = {  # points as shares of the square to draw in
    "1": [(0.5, 0.15), (0.5, 0.85)],
    "7": [(0.28, 0.2), (0.72, 0.2), (0.45, 0.85)],
    "0": [(0.5, 0.15), (0.35, 0.25), (0.28, 0.5), (0.35, 0.75), (0.5, 0.85),
          (0.65, 0.75), (0.72, 0.5), (0.65, 0.25), (0.5, 0.15)],
}  # fmt: skip


def demo(project: Project, *arguments: str, status: int = 0) -> str:
    return project.module("tools.demo", *arguments, status=status).stderr


def test_without_a_model_it_says_what_to_run_first(project):
    if importlib.util.find_spec("gradio"):
        assert "type `make run` first" in demo(project, status=1)
    else:
        assert "`make demo` installs it" in demo(project, status=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_document, environment):
    """Return the port of the demo of a CNN that knows its digits; other models learn little."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("Gradio is not installed: extras/demo/requirements.txt")
    project = Project(tmp_path_factory.mktemp("demo") / "project", tiny_document, environment)
    mnist = {"dataset": "mnist", "epochs": 2, "train.batch_size": 128,
             "prepare.train_images": 20_000}  # fmt: skip
    digits = {"dataset": "digits", "epochs": 20, "train.batch_size": 32}
    usual = {"cnn.filters": [32, 64], "cnn.dense": 128, "cnn.shift": 2, "cnn.learning_rate": 0.003}
    project.set(usual | (mnist if MNIST.exists() else digits))
    if MNIST.exists():
        project.environment = environment | {"KERAS_HOME": os.environ["KERAS_HOME"]}
    project.stage("prepare")
    project.stage("train", "cnn")
    project.set(usual | (mnist if MNIST.exists() else digits) | {"epochs": 1})
    project.stage("train", "lstm")
    project.stage("train", "hybrid")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.demo", "--no-browser", "--port", str(port)],
        cwd=project.folder, env=project.environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        for line in process.stdout:
            if "Running on" in line:
                break
        else:
            pytest.fail("the demo ended before it served a page")
        listening = psutil.Process(process.pid).net_connections()
        assert {c.laddr.ip for c in listening if c.status == "LISTEN"} == {"127.0.0.1"}
        yield port
    finally:
        process.terminate()
        process.communicate()


def by_mouse(page: Page, places: Sequence[tuple[float, float]]) -> None:
    """Draw a line through points on the screen."""
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=12)
    page.mouse.up()


def by_finger(page: Page, places: Sequence[tuple[float, float]]) -> None:
    """Draw a line through points on a touch screen."""
    chromium = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        where = [{"x": x, "y": y} for x, y in points]
        chromium.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})

    touch("touchStart", places[0])
    for (x0, y0), (x1, y1) in pairwise(places):
        for share in np.linspace(0, 1, 12):
            touch("touchMove", (x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
    touch("touchEnd")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("draw", "digits", "options"),
    [
        (by_mouse, "170", {"viewport": {"width": 1200, "height": 1000}}),
        pytest.param(
            by_finger,
            "7",
            {"viewport": {"width": 390, "height": 1000}, "has_touch": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_drawn_digits_are_recognized(served, browser, draw, digits, options):  # noqa: F811
    page, hosts = browser.new_page(**options), set()
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    for digit in digits:
        page.goto(f"http://127.0.0.1:{served}/")
        page.wait_for_selector("canvas")
        page.wait_for_timeout(3000)  # the page selects the brush
        box = page.locator("canvas").first.bounding_box()
        side = 0.75 * box["width"]  # of a square within the white part
        left, top = (box[k] + (box[n] - side) / 2 for k, n in (("x", "width"), ("y", "height")))
        draw(page, [(left + x * side, top + y * side) for x, y in STROKES[digit]])
        page.wait_for_function("document.querySelector('#cnn').innerText.includes('%')")
        assert page.locator("#cnn").inner_text().split()[1] == digit
        assert page.locator("#said").inner_text().startswith("The ensemble says")
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder, f"demo-{digit}-{draw.__name__}.png"))
    page.close()
    assert hosts <= {"127.0.0.1", None}
