"""The report page and its short version, from invented results."""

from __future__ import annotations

import csv
import html
import json
import re
from base64 import b64decode, b64encode
from contextlib import redirect_stdout
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
import yaml
from PIL import Image
from report_data import MESSAGES, VERSIONS, build_tree

from stages import report
from stages.common.cli import StageError
from stages.evaluation.significance import wilson_interval

MODELS = ("cnn", "lstm", "hybrid", "transformer", "a_model_with_quite_a_long_name")
FIGURES = 7  # drawn by matplotlib
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{",
    "数字",
    "عربي",
]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run with three models and ten classes, and what its commands printed."""
    path = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.chdir(path)
        build_tree(MODELS[:3], "0123456789", epochs=10)
        report.main()
    return path, printed.getvalue()


@pytest.fixture
def page(made, monkeypatch):
    """The page of `made`, whose folder becomes the working directory."""
    monkeypatch.chdir(made[0])
    return Page()


class Page(HTMLParser):
    """A page's elements, attributes, Content-Security-Policy, and rows of tables by label."""

    def __init__(self, path: Path | str = "plots/report.html"):
        super().__init__()
        self.text = Path(path).read_text(encoding="utf-8")
        self.tags, self.attributes, self.policies = set(), [], []
        self.tables: dict[str, dict[str, dict[str, str]]] = {}
        self.table, self.cells, self.column = {}, {}, None
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        named = dict(attributes)
        if named.get("http-equiv") == "Content-Security-Policy":
            assert "body" not in self.tags
            self.policies.append(named["content"])
        if tag == "div" and "aria-label" in named:
            self.table = self.tables[named["aria-label"]] = {}
        elif tag == "tr":
            self.cells = {}
        elif "data-label" in named or "scope" in named:
            self.column = named.get("data-label", "")

    def handle_data(self, data):
        if self.column is not None:
            self.cells[self.column] = self.cells.get(self.column, "") + data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.column = None
        elif tag == "tr" and "" in self.cells:
            self.table[self.cells[""]] = self.cells


def read(path: str):
    text = Path(path).read_text(encoding="utf-8")
    return json.loads(text) if path.endswith(".json") else list(csv.DictReader(text.splitlines()))


def shows(text: str, *values: float) -> bool:
    """Return whether the numbers in a cell, such as `−0.17 to +0.09`, are rounded `values`."""
    found = re.findall(r"[-+]?[\d,]*\.?\d+", text.replace("−", "-"))
    errors = [0.5001 * 10 ** -len(number.partition(".")[2]) for number in found]
    return [float(number.replace(",", "")) for number in found] == [
        pytest.approx(value, rel=0, abs=error) for value, error in zip(values, errors, strict=True)
    ]


# --- numbers ------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_files(page):
    details = read("data/predictions/details.json")
    inference = read("data/timing/inference.json")["seconds_per_image"]
    wanted: dict[tuple[str, str], dict[str, list[float]]] = {}  # table, row: column: values
    for name, row in read("metrics/test.json").items():
        tested, more = row["test"], details["models"][name]
        wanted["Result table", name] = {
            "test (%)": [100 * tested["accuracy"]],
            "95 % interval (%)": [100 * end for end in more["accuracy_interval"]],
            "test loss": [tested["loss"]],
            "errors": [more["errors"]],
        }
        wanted["Calibration", name] = {
            "calibration error (%)": [100 * tested["calibration_error"]],
            "mean confidence when right (%)": [100 * more["confidence_right"]],
            "when wrong (%)": [100 * more["confidence_wrong"]],
            "top-2 accuracy (%)": [100 * more["top_2_accuracy"]],
            "macro precision (%)": [100 * more["macro_precision"]],
            "balanced accuracy (%)": [100 * tested["balanced_accuracy"]],
            "macro F1 (%)": [100 * tested["macro_f1"]],
        }
        wanted["Cost", name] = {
            "one image (ms)": [1000 * inference[name]["batch_1"]],
            "per image in a batch of 256 (ms)": [1000 * inference[name]["batch_256"]],
        }
    for row in read("plots/per_class.csv"):
        columns = wanted.setdefault(("Classes", row["class"]), {})
        right, images = round(float(row["recall"]) * int(row["support"])), int(row["support"])
        values = [right / images, *wilson_interval(right, images)]
        columns[f"{row['model']} (%)"] = [100 * value for value in values]
    for name in MODELS[:3]:
        val, timing = read(f"metrics/{name}.json")[name]["val"], read(f"data/timing/{name}.json")
        wanted["Result table", name] |= {
            "train (%)": [100 * timing["train_accuracy"]],
            "val (%)": [100 * val["accuracy"]],
            "val loss": [val["loss"]],
            "parameters": [timing["parameters"]],
            "epochs": [timing["epochs"]],
            "training (s)": [timing["train_seconds"]],
        }
        wanted["Cost", name]["peak memory in training (MB)"] = [timing["peak_memory_bytes"] / 1e6]
        values = [float(row["val_accuracy"]) for row in read(f"plots/history/{name}.csv")]
        reached = next(i for i, value in enumerate(values, 1) if value >= 0.99 * values[-1])
        wanted["Learning", name] = {
            "epochs to 99 % of the last validation accuracy": [reached, len(values)],
            "last validation accuracy (%)": [100 * values[-1]],
            "training − validation (points)": [100 * (timing["train_accuracy"] - val["accuracy"])],
        }
    for pair in details["comparisons"]:
        wanted["Comparisons", f"{pair['a']} – {pair['b']}"] = {
            "difference (points)": [100 * pair["difference"]],
            "95 % interval (points)": [100 * end for end in pair["interval"]],
            "only first wrong": [pair["only_a"]],
            "only second wrong": [pair["only_b"]],
            "both wrong": [pair["both"]],
            "p, corrected": [max(pair["p_holm"], 0.001)],
        }
    strengths = {}
    for row in read("plots/robustness.csv"):
        if row["strength"] != "0":
            place = (row["corruption"], row["model"])
            strengths.setdefault(place, []).append(100 * float(row["accuracy"]))
    for (kind, name), values in strengths.items():
        columns = wanted.setdefault(("Robustness", name), {})
        columns[kind] = [sum(values) / 5]
        total = read("metrics/test.json")[name]["test"]["robustness"]
        columns["mean: robustness"] = [100 * total]
    for (table, name), columns in wanted.items():
        for column, values in columns.items():
            shown = page.tables[table][name][column]
            assert shows(shown, *values), f"{table}, {name}, {column}: {shown} is not {values}"


def test_targets_and_reported_figures_for_the_same_epochs_are_listed(page):
    targets = yaml.safe_load(Path("studies/targets.yaml").read_text(encoding="utf-8"))
    for entry in targets:
        if (entry["dataset"], entry["epochs"]) == ("mnist", 10):
            shown = page.tables["Compared with others"][f"target: {entry['model']}"]
            assert shows(shown["test (%)"], 100 * entry["accuracy"])
    rows = [row for name, row in page.tables["Compared with others"].items() if "reported:" in name]
    known = yaml.safe_load(Path("studies/published.yaml").read_text(encoding="utf-8"))
    wanted = [e for e in known if e["dataset"] == "mnist" and e["epochs"] in (None, 10)]
    for row, entry in zip(rows, wanted, strict=True):
        assert shows(row["test (%)"], 100 * entry["accuracy"])
        assert row["epochs"] == str(entry["epochs"] or "?")


def test_the_run_is_compared_with_the_study_of_its_settings_only(made):
    """The invented runs have the committed settings; here also the study's library versions."""
    assert "range of the seeds" not in made[1]  # the invented versions are not the study's
    build_tree(MODELS[:3], "0123456789", epochs=10)
    cell = read("studies/results/comparison.json")[0]
    versions = cell["libraries"] | {"results_version": str(cell["results_version"])}
    path = Path("data/timing/cnn.json")
    path.write_text(
        json.dumps(read(str(path)) | {"versions": VERSIONS | versions}), encoding="utf-8"
    )
    with redirect_stdout(StringIO()) as printed:
        report.main()
    for text in (printed.getvalue(), Path("plots/report.md").read_text(), Page().text):
        assert re.search(r"cnn: \d\d.\d\d.% is lower than the range of the seeds", text)
        assert not re.search(r"lstm: \d\d.\d\d.% is", text)


@pytest.mark.usefixtures("page")
def test_the_short_version_has_every_model_with_its_interval():
    lines = Path("plots/report.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split()[1]: line for line in lines if line.startswith("| ")}
    for row in read("metrics/results.csv"):
        shown = [f"{100 * float(row[f'test_{key}']):.2f}" for key in ("accuracy", "low", "high")]
        assert f" {shown[0]} ({shown[1]}–{shown[2]}) " in rows[row["model"]]
    assert len({len(line) for line in rows.values()}) == 1  # the columns line up


def test_the_checks_of_the_data_are_shown_and_warnings_stand_at_the_top(page):
    warning, other = MESSAGES
    top, rest = page.text.split('<section id="results">')
    assert f'<p class="warning">{warning}</p>' in top
    assert other not in top
    assert f'<li class="warning">{warning}</li><li>{other}</li>' in rest
    assert "labels 1–10 became classes 0–9" in rest
    assert Path("plots/report.md").read_text(encoding="utf-8").endswith(f"\n> {warning}.\n")


def test_every_model_that_is_not_significantly_worse_is_marked(page):
    marked = re.findall(r'class="card leading"><h2>.*?</span>(\w+)', page.text)
    best = min(read("metrics/results.csv"), key=lambda row: int(row["errors"]))["model"]
    worse = {
        pair["b" if pair["a"] == best else "a"]
        for pair in read("data/predictions/details.json")["comparisons"]
        if best in (pair["a"], pair["b"]) and pair["p_holm"] < 0.05
    }
    assert set(marked) == {*MODELS[:3], "ensemble"} - worse
    bold = re.findall(r'<tr class="best"><th scope="row"><span[^>]*></span>(\w+)', page.text)
    assert bold == marked


def test_without_mistakes_it_says_so():
    build_tree(MODELS[:3], "ab", epochs=1, n=3, wrong=0)
    report.main()
    text = Page().text
    assert "No mistakes to show." in text
    assert "no test image on which all models agree against the label" in text
    assert "The CNN, the LSTM, the hybrid and the ensemble share the highest test accuracy" in text


def test_sequences_are_film_strips():
    build_tree(MODELS[:3], "abc", epochs=2, shape=(6, 12, 9, 1))
    report.main()
    pictures = re.findall(
        r'alt="(\w+) images?[^"]*" src="data:image/png;base64,([^"]+)"', Page().text
    )
    sizes = {kind: Image.open(BytesIO(b64decode(data))).size for kind, data in pictures}
    assert sizes == {"Training": (2 * 6 * 9, 12), "Test": (6 * 9, 12)}  # the sheet has two of them


# --- form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "classes", "epochs", "shape", "megabytes"),
    [(1, 2, 1, (12, 9, 1), 1), (3, 10, 30, (28, 28, 1), 1.5), (5, 26, 50, (12, 9, 1), 2.5)],
)
def test_the_page_is_small_and_self_contained(models, classes, epochs, shape, megabytes):
    names = [chr(65 + i) for i in range(classes)]
    build_tree(MODELS[:models], names, epochs, shape=shape)
    report.main()
    text = Page().text
    assert len(text.encode()) < megabytes * 1e6
    assert text.count('role="img" aria-label=') == text.count('role="img"')
    assert text.count('aria-label="Figure"><svg') == FIGURES
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(name in text for name in MODELS[:models])


def test_every_point_of_a_figure_shows_its_value_on_hover(page):
    figures = re.findall(r'aria-label="Figure"><svg .*?</svg>', page.text, re.DOTALL)
    hints = [re.findall(r"<title>(.*?)</title>", figure) for figure in figures]
    forest = next(found for found in hints if any("target" in text for text in found))
    assert any(re.fullmatch(r"lstm: target 99\.\d\d %", text) for text in forest)
    assert sum(text.startswith("reported: ") for text in forest) >= 2
    learning = next(found for found in hints if any("epoch 10" in text for text in found))
    assert len(learning) == 3 * 2 * 2 * 10  # models, panels, parts, epochs
    last = read("plots/history/cnn.csv")[-1]
    assert f"cnn, training, epoch 10: {float(last['loss']):.3g} nats" in learning


def test_the_page_allows_nothing_but_itself(page):
    (policy,) = page.policies
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert dict(part.split(maxsplit=1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_names_from_users_do_not_become_html(made):
    """Class names, the dataset's path and the processor's name add no elements to the page."""
    plain = Page(made[0] / "plots/report.html")
    build_tree(MODELS[:3], HOSTILE, epochs=2)
    path = "<script>alert(1)</script>/<img src=x onerror=alert(2)>.npz"
    for file in (Path("params.yaml"), Path("data/prepared/manifest.json")):
        text = file.read_text(encoding="utf-8").replace(": mnist", f": {json.dumps(path)}")
        file.write_text(text.replace('"mnist"', json.dumps(path)), encoding="utf-8")
    report.main()
    found = Page()
    assert all(html.escape(name) in found.text for name in (path, HOSTILE[0], "数字"))
    assert found.tags == plain.tags
    assert found.text.count("<script") == 1
    assert not {"iframe", "object", "embed", "form", "base", "link"} & found.tags
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert not (value or "").strip().lower().startswith("javascript:")
    assert "<script" not in Path("plots/report.md").read_text(encoding="utf-8")
    card = Path("plots/MODEL_CARD.md").read_text(encoding="utf-8").split("```sh")[0]
    assert r"\<script\>alert(1)\</script\>" in card
    assert not re.search(r"(?<!\\)<", card)


@pytest.mark.usefixtures("page")
def test_equal_results_give_equal_bytes():
    outputs = ("plots/report.html", "plots/report.md", "plots/figures/cost.png")
    first = [Path(name).read_bytes() for name in outputs]
    report.main()
    assert [Path(name).read_bytes() for name in outputs] == first


def test_a_missing_file_is_named():
    build_tree(MODELS[:3], "abc", epochs=3)
    Path("plots/history/lstm.csv").unlink()
    with pytest.raises(StageError, match=r"lstm\.csv is missing"):
        report.main()


@pytest.mark.usefixtures("page")
def test_the_model_card_has_figures_limits_and_how_to_load_a_model():
    text = Path("plots/MODEL_CARD.md").read_text(encoding="utf-8")
    rows = json.loads(Path("metrics/test.json").read_text(encoding="utf-8"))
    for name, figures in rows.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert f"{100 * figures['test']['accuracy']:.2f} (" in row
    assert "| shift |" in text
    assert 'keras.models.load_model("data/models/cnn.keras", safe_mode=True)' in text
    assert "dvc exp run -S dataset=" in text
    assert "{" not in text.replace("{-", "")
