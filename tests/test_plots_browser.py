"""`dvc plots` and the report page in a real browser without a network."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import IDENTITY, ROOT
from report_data import build_tree
from test_report import FIGURES

from stages import report
from stages.common.files import write_csv

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
# DVC's page loads Vega from this host. Here it gets vl-convert-python's copy.
VEGA_HOST = "https://cdn.jsdelivr.net/npm/"
AXE = ROOT / "tests/node_modules/axe-core/axe.min.js"
MODELS = ("cnn", "lstm", "hybrid", "transformer", "a_model_with_quite_a_long_name")
PATIENCE = 120_000  # ms; the default of 30 s can pass on a busy machine
SHAPES = {  # number of models, classes, epochs
    "small": (3, "0123456789", 2),
    "large": (5, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 50),
    "strange": (3, ["<b>bold</b>", "数字", "عربي", "a class name that goes on and on and on"], 5),
}
OPTIONS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
    "wider phone": {"viewport": {"width": 500, "height": 900}},
    "print": {},
}
COVERED = """(() => {
  const bottom = each => each.getBoundingClientRect().bottom;
  const parts = [...document.querySelectorAll(".strip > *")];
  return parts.filter(each => bottom(each) > bottom(each.parentNode) + 1).length;
})()"""

pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE
        )
        yield running
        running.close()


@pytest.fixture
def open_page(browser, tmp_path, request):
    """Return a function that opens a file and returns its page; then check for problems.

    It keeps a screenshot, in the folder `SCREENSHOTS` if that is set.
    """
    opened = []

    def open_file(path: Path, route=None, media: str = "screen", **options):
        page, problems = browser.new_page(**options), []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.route(lambda url: not url.startswith(("file:", "data:")), route or (
            lambda blocked: problems.append(blocked.request.url) or blocked.abort()
        ))  # fmt: skip
        page.emulate_media(media=media)
        page.goto(path.as_uri())
        opened.append((page, problems))
        return page

    yield open_file
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    for page, problems in opened:
        page.screenshot(path=folder / f"{request.node.name}.png", full_page=True)
        page.close()
        assert problems == []


def run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | IDENTITY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def dvc(*arguments: str) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with four commits of invented results, after one with other tables."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("git", "init", "-q")
        dvc("init", "-q")
        shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
        dvc("config", "core.analytics", "false")
        curve = {"plots/history/cnn.csv": {"x": "epoch", "y": "accuracy"}}
        old = {"plots": [curve, {"plots/confusion": {"x": "predicted", "y": "actual"}}]}
        (folder / "dvc.yaml").write_text(yaml.safe_dump(old), encoding="utf-8")
        for epochs in (4, 5, 6, 7, 8):
            build_tree(MODELS[:3], "0123456789", epochs)
            report.main()
            if epochs == 4:
                for name in ("confusion", "per_class", "calibration", "mistakes", "robustness"):
                    (folder / f"plots/{name}.csv").unlink()
                write_csv(folder / "plots/confusion/cnn.csv", [{"actual": 1, "predicted": 2}])
            run("git", "add", "-A")
            run("git", "commit", "-qm", f"{epochs} epochs")
            shutil.copy(ROOT / "dvc.yaml", folder)
            shutil.rmtree(folder / "plots/confusion", ignore_errors=True)
    return folder


@pytest.mark.parametrize(
    "revisions",
    [
        (),
        pytest.param(("HEAD~1",), marks=pytest.mark.slow),
        ("HEAD", "HEAD~1", "HEAD~2", "HEAD~3"),
        ("HEAD~4",),
    ],
    ids=["one revision", "two", "four", "a revision with other tables"],
)
def test_dvc_draws_every_table_once(project, open_page, revisions, monkeypatch):
    import vl_convert

    vega = vl_convert.javascript_bundle(
        "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
    )
    monkeypatch.chdir(project)
    printed = dvc("plots", *(("diff", *revisions) if revisions else ("show",)))
    assert "WARNING" not in printed
    assert "ERROR" not in printed
    text = (project / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert "dvc_inferred" not in text
    assert '"field": "step"' not in text  # DVC's x axis if dvc.yaml names none
    drawn = re.findall(r'<div id = "(\w+)"', text)
    document = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))
    curves = [name for figure in document["plots"] for name in figure]
    assert drawn[:4] == curves
    if "HEAD~4" not in revisions:  # DVC also draws tables that only that revision has
        tables = [
            re.sub(r"\W", "_", name)
            for stage in document["stages"].values()
            for figure in stage.get("plots", [])
            for name in figure
        ]
        assert sorted(drawn) == sorted([*curves, *tables])
        assert len(drawn) <= 12
        assert "<img" not in text

    def library(route):
        assert route.request.url.startswith(VEGA_HOST)
        body = vega if "vega-embed" in route.request.url else ""
        route.fulfill(body=body, content_type="text/javascript")

    page = open_page(project / "dvc_plots/index.html", library)
    charts = text.count("vegaEmbed(")
    assert charts == len(drawn)
    page.wait_for_function(
        f"document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= {charts}"
    )


@pytest.fixture(scope="module", params=SHAPES)
def shape(request, tmp_path_factory):
    """The path of a report, and its number of models."""
    models, classes, epochs = SHAPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build_tree(MODELS[:models], classes, epochs)
        report.main()
    return folder / "plots/report.html", models


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_report_fits(shape, open_page, kind):
    path, models = shape
    page = open_page(path, media="print" if kind == "print" else "screen", **OPTIONS[kind])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("figure .scroll > svg[role=img][aria-label]").count() == FIGURES
    assert page.locator(".models .card").count() == models + 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.evaluate(COVERED) == 0, "a heat strip covers its axis"
    if kind == "phone":  # each model's test accuracy is visible without scrolling sideways
        for cell in page.locator('#results .cards tbody td[data-label="test (%)"]').all():
            box = cell.bounding_box()
            assert 0 <= box["x"] < box["x"] + box["width"] <= 360
        wider = "all => all.map(box => box.scrollWidth - box.clientWidth)"
        assert set(
            page.locator("#results .scroll:not([aria-label=Figure])").evaluate_all(wider)
        ) == {0}
    page.keyboard.press("Tab")  # to the first link; print has none, so to the first table
    assert page.evaluate("document.activeElement.tagName") == ("DIV" if kind == "print" else "A")


@pytest.mark.parametrize(
    "kind", ["dark", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("light", "phone"))]
)
def test_axe_finds_nothing_serious(shape, open_page, kind):
    if not AXE.exists():
        pytest.skip("no axe-core: npm ci --prefix tests")
    page = open_page(shape[0], **OPTIONS[kind])
    page.evaluate(AXE.read_text(encoding="utf-8") + "; undefined")
    found = [
        (violation["id"], node["html"])
        for violation in page.evaluate("axe.run()")["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert found == []


def test_tables_sort_and_a_confusion_shows_its_images(shape, open_page):
    page = open_page(shape[0])
    head = page.locator("#results table", has_text="parameters").locator("th", has_text="errors")
    column = "all => all.map(cell => Number(cell.textContent.replace(',', '')))"
    cells = page.locator('#results td[data-label="errors"]')
    for order, sign in (("descending", -1), ("ascending", 1)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        values = cells.evaluate_all(column)
        assert values == sorted(values, key=lambda value: sign * value)
        assert len(set(values)) > 1
    link = page.locator(".confusion a").first
    pair = ":".join(link.get_attribute(f"data-{key}") for key in ("model", "actual", "predicted"))
    items = page.locator(".mistakes > li")
    every = items.count()
    link.click()
    visible = page.locator(".mistakes > li:not([hidden])")
    assert 1 <= visible.count() == min(8, int(link.text_content())) < every
    for pairs in visible.evaluate_all("all => all.map(item => item.dataset.pairs)"):
        assert pair in pairs.split()
    page.locator(".filter button").click()
    assert visible.count() == every
    page.locator(".filter select").first.select_option("1")
    labels = visible.evaluate_all("all => all.map(item => item.dataset.pairs.split(':')[1])")
    assert set(labels) == {"1"}


def test_a_table_is_saved_as_csv(shape, open_page):
    page = open_page(shape[0])
    with page.expect_download() as started:
        page.locator('#results [aria-label="Save as CSV: Result table"]').click()
    assert started.value.suggested_filename == "Result table.csv"
    rows = list(csv.reader(Path(started.value.path()).read_text("utf-8").splitlines()))
    assert rows[0][:2] == ["model", "parameters"]
    assert rows[1][:2] == ["cnn", "1000"]
    assert len(rows) == shape[1] + 2  # the head and the ensemble


def test_without_scripts_everything_is_there(shape, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(shape[0].as_uri())
    assert page.locator(".mistakes > li[hidden]").count() == 0
    assert page.locator(".mistakes > li").count() > 0
    assert page.locator("th button").count() == 0
    assert not page.locator(".filter").is_visible()
    context.close()
