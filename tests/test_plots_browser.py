"""`dvc plots` and the report page, drawn by a real browser that has no network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from report_data import ROOT, build_tree

from stages import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
# DVC's page fetches Vega from this host; here the library comes from vl-convert-python.
VEGA_HOST = "https://cdn.jsdelivr.net/npm/"
MODELS = ("cnn", "lstm", "hybrid")
PATIENCE = 120_000  # ms; the usual 30 s may pass on a busy machine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def vega():
    import vl_convert

    return vl_convert.javascript_bundle(
        "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with two commits of made-up results."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("NAME", "test"), ("EMAIL", "test@localhost")):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shell("git", "init", "-q")
    dvc("init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    dvc("config", "core.analytics", "false")
    for epochs in (5, 8):
        for folder in ("data", "metrics", "plots"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        build_tree(tmp_path, MODELS, list("0123456789"), epochs)
        report.main()
        shell("git", "add", "-A")
        shell("git", "commit", "-qm", f"{epochs} epochs")
    return tmp_path


def shell(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def dvc(*arguments: str) -> str:
    return shell(sys.executable, "-m", "dvc", *arguments)


@pytest.mark.parametrize("command", [("show",), ("diff", "HEAD~1")])
def test_dvc_plots_draw(project, browser, vega, command, tmp_path):
    said = dvc("plots", *command)
    assert "WARNING" not in said
    assert "ERROR" not in said
    page, problems = browser.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.route(
        f"{VEGA_HOST}**",
        lambda route: route.fulfill(
            body=vega if "vega-embed" in route.request.url else "", content_type="text/javascript"
        ),
    )
    page.goto((project / "dvc_plots/index.html").as_uri())
    shown = (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    charts = shown.count("vegaEmbed(")
    assert "dvc_inferred" not in shown
    assert '"field": "step"' not in shown  # DVC's axis where nobody named one
    for name in yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["plots"]:
        (key,) = name
        assert re.sub(r"\W", "_", key) in shown
    page.wait_for_function(
        f"document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= {charts}"
    )
    keep(page, f"dvc_plots_{command[0]}", tmp_path)
    assert problems == []
    page.close()


@pytest.mark.parametrize(
    ("models", "classes", "epochs"),
    [(3, [str(i) for i in range(10)], 2), (5, [chr(65 + i) for i in range(26)], 50),
     (3, ["<b>bold</b>", "数字", "عربي", "a class name that goes on and on and on"], 5)],
)  # fmt: skip
@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}, {"media": "print"}],
    ids=["light", "dark", "phone", "print"],
)
def test_report_fits(tmp_path, monkeypatch, browser, models, classes, epochs, options):
    monkeypatch.chdir(tmp_path)
    names = (*MODELS, "transformer", "a_model_with_quite_a_long_name")[:models]
    build_tree(tmp_path, names, classes, epochs)
    report.main()
    media = {k: v for k, v in options.items() if k == "media"}
    page, problems = browser.new_page(**{k: v for k, v in options.items() if k != "media"}), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: problems.append(request.url)
            if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
    if media:
        page.emulate_media(**media)
    page.goto((tmp_path / "plots/report.html").as_uri())
    keep(page, f"report_{models}_{len(classes)}_{'_'.join(map(str, options))}", tmp_path)
    assert problems == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("svg[role=img][aria-label]").count() == 4 + models + 1
    assert page.locator("img:not([alt])").count() == 0
    if "viewport" in options:  # each model's test accuracy is on the screen, unscrolled
        for cell in page.locator('#results .cards tbody td[data-label="test %"]').all():
            box = cell.bounding_box()
            assert 0 <= box["x"] < box["x"] + box["width"] <= options["viewport"]["width"]
        boxes = page.locator("#results .scroll").evaluate_all(
            "all => all.map(box => box.scrollWidth - box.clientWidth)"
        )
        assert boxes == [0, 0]
    page.keyboard.press("Tab")  # to the first link, or on paper, which has none, the first table
    assert page.evaluate("document.activeElement.tagName") == ("DIV" if media else "A")
    page.close()


def keep(page, name: str, folder: Path) -> None:
    """Take a screenshot, into `SCREENSHOTS` where a person wants to look at it."""
    page.screenshot(
        path=Path(os.environ.get("SCREENSHOTS", folder)) / f"{name}.png", full_page=True
    )
