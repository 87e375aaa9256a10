"""The page and its short form, on made-up results of many shapes."""

import html
import json
import re
from html.parser import HTMLParser

import pytest
from report_data import build_tree

from stages import report, results
from stages.expected import missed
from stages.files import StageError
from stages.verdict import verdict

MODELS = ("cnn", "lstm", "hybrid", "transformer", "a_model_with_quite_a_long_name")
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{",
    "数字",
    "عربي",
]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("models", [3, 5])
@pytest.mark.parametrize(("classes", "epochs"), [(10, 2), (26, 50)])
def test_page_holds(tree, models, classes, epochs):
    build_tree(tree, MODELS[:models], [chr(65 + i) for i in range(classes)], epochs)
    report.main()
    page = (tree / "plots/report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 3_000_000
    assert page.count('role="img"') == 4 + models + 1
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(name in page for name in MODELS[:models])


def test_class_names_reach_the_page_as_text(tree):
    build_tree(tree, MODELS[:3], HOSTILE, 2)
    report.main()
    page = (tree / "plots/report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert html.escape(HOSTILE[0]) in page
    assert "数字" in page
    assert "default-src 'none'" in page


class Tags(HTMLParser):
    """Collects a page's elements, their attributes, and its Content-Security-Policy."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.policies = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if ("http-equiv", "Content-Security-Policy") in attributes:
            assert "body" not in self.tags
            self.policies.append(dict(attributes)["content"])


def test_nothing_that_users_name_becomes_html(tree):
    """Class names, the data's path and the processor's name: same elements as with plain ones."""
    build_tree(tree, MODELS[:3], list("abcde"), 2)
    report.main()
    plain = Tags((tree / "plots/report.html").read_text(encoding="utf-8"))
    path = "<script>alert(1)</script>/<img src=x onerror=alert(2)>.npz"
    for name in ("params.yaml", "data/prepared/manifest.json"):
        file = tree / name
        text = file.read_text(encoding="utf-8")
        for old, new in zip("abcde", HOSTILE, strict=True):
            text = text.replace(f'"{old}"', json.dumps(new))
        file.write_text(text.replace(": mnist", f": {json.dumps(path)}")
                        .replace('"mnist"', json.dumps(path)), encoding="utf-8")  # fmt: skip
    report.main()
    page = (tree / "plots/report.html").read_text(encoding="utf-8")
    found = Tags(page)
    assert html.escape(path) in page
    assert found.tags == plain.tags
    assert not {"script", "iframe", "object", "embed", "form", "base", "link"} & found.tags
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert not (value or "").strip().lower().startswith("javascript:")
    assert "<script" not in (tree / "plots/report.md").read_text(encoding="utf-8")


def test_the_page_allows_nothing_but_itself(tree):
    build_tree(tree, MODELS[:3], list("abc"), 2)
    report.main()
    (policy,) = Tags((tree / "plots/report.html").read_text(encoding="utf-8")).policies
    allowed = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert allowed == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_wrong_says_so(tree):
    build_tree(tree, MODELS[:3], list("ab"), 1, n=3, wrong=0)
    report.main()
    page = (tree / "plots/report.html").read_text(encoding="utf-8")
    assert "No mistakes to show." in page
    assert "none to show" in page
    assert "share the highest test accuracy, 100.00%" in page


def test_a_missed_floor_is_loud_everywhere(tree, capsys):
    build_tree(tree, MODELS[:3], list("0123456789"), 10)
    report.main()
    results.main()
    assert capsys.readouterr().out.count("BELOW THE FLOOR  cnn: test accuracy") == 2
    for name in ("report.html", "report.md"):
        assert "misses the floor of 99.45%" in (tree / "plots" / name).read_text(encoding="utf-8")
    page = (tree / "plots/report.html").read_text(encoding="utf-8")
    assert "validation = test" in page
    assert missed("digits", results.collect()) == []


def test_same_figures_same_bytes(tree):
    build_tree(tree, MODELS[:3], list("abc"), 3)
    outputs = ("plots/report.html", "plots/readme/per_class.png", "plots/figures/cost.png")
    report.main()
    first = [(tree / name).read_bytes() for name in outputs]
    report.main()
    assert [(tree / name).read_bytes() for name in outputs] == first


def test_a_missing_file_is_named(tree):
    build_tree(tree, MODELS[:3], list("abc"), 3)
    (tree / "plots/history/lstm.csv").unlink()
    with pytest.raises(StageError, match=r"lstm\.csv is missing"):
        report.main()


def scores(**errors):
    return {name: {"errors": n, "accuracy": 1 - n / 1000} for name, n in errors.items()}


def pair(a, b, p):
    return {"a": a, "b": b, "p_holm": p}


def test_verdict_follows_the_tests():
    compared = [
        pair("cnn", "lstm", 1e-5),
        pair("cnn", "hybrid", 0.41),
        pair("lstm", "hybrid", 2e-4),
    ]
    text = " ".join(verdict(scores(cnn=9, lstm=40, hybrid=8), compared, 1000))
    assert "The hybrid has the highest test accuracy, 99.20%" in text
    assert "not distinguishable from the cnn on this test set (p = 0.41)" in text
    assert "both beat the lstm (p < 0.001)" in text


def test_verdict_does_not_claim_what_only_the_best_can():
    compared = [pair("cnn", "lstm", 0.2), pair("cnn", "hybrid", 0.3), pair("lstm", "hybrid", 0.01)]
    text = " ".join(verdict(scores(cnn=20, lstm=30, hybrid=8), compared, 1000))
    assert "The hybrid beats the lstm (p = 0.01)" in text or "the hybrid beats the lstm" in text
    assert "both" not in text
