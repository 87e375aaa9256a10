"""What a digest stands for: what code does, and all that determines a trial."""

from __future__ import annotations

import pytest
from conftest import ROOT, set_keys
from test_dvc_yaml import files_of

from stages.digests import RECORDED_AS, code_digest, json_digest
from stages.files import read_json
from stages.study.trial import CODE, describe

CODE_TEXT = 'NAME = "a"\n\n\ndef double(x):\n    return 2 * x\n'
SAME = (
    '"""Explained."""\n\n# noted\nNAME = "a"\n\ndef double(x):\n    """Twice."""\n    return 2*x\n'
)
F_STRINGS = """
def show(row: dict, *, width: int = 8, **more: object) -> str:
    match row:
        case {"name": str(name), **rest} if not rest:
            return f"{row['name']}: {row['value']:>{width}.2f}" f"{more!r}\\n"
    return ", ".join(f"{key}={row[key]:.4g}" for key in sorted(row, key=lambda key: -len(key)))
"""
DATA = {
    "image_shape": [28, 28, 1],
    "class_names": list("ab"),
    "splits": {"train": {"x_sha256": "1", "y_sha256": "2", "images": 9}},
}


def digest(folder, text: str) -> str:
    (folder / "module.py").write_text(text, encoding="utf-8")
    return code_digest(["module"], folder)


def test_comments_docstrings_and_layout_do_not_count(tmp_path):
    assert digest(tmp_path, SAME) == digest(tmp_path, CODE_TEXT)


@pytest.mark.parametrize("edit", [("2 * x", "3 * x"), ('"a"', '"b"'), ("NAME", "TITLE")])
def test_what_the_code_does_counts(tmp_path, edit):
    assert digest(tmp_path, CODE_TEXT.replace(*edit)) != digest(tmp_path, CODE_TEXT)


def test_a_function_of_a_docstring_alone_is_not_an_error(tmp_path):
    assert digest(tmp_path, 'def f():\n    """Nothing."""\n') == digest(
        tmp_path, "def f():\n    pass\n"
    )


def test_every_version_of_python_gives_the_same_digest(tmp_path):
    """Python 3.11.7, 3.12.1 and 3.13.0 gave this one; their f-strings are not quite alike."""
    assert (
        digest(tmp_path, F_STRINGS)
        == "9d244805c19f640dea9c54895367ac27285ad25c97eed373ffcadbd39c0b520f"
    )


def test_the_recorded_trials_are_of_a_code_that_has_its_digest():
    recorded = {read_json(path)["job"]["code"] for path in (ROOT / "studies/trials").glob("*.json")}
    assert recorded <= {*RECORDED_AS.values(), code_digest(CODE)}


def key(tiny_document, changes=None, model="lstm", evaluate="test", data=DATA) -> str:
    return json_digest(describe(set_keys(tiny_document, changes or {}), model, evaluate, data))


@pytest.mark.parametrize(
    "changes", [{"epochs": 9}, {"seed": 9}, {"lstm.dropout": 0.9}, {"train.threads": 9}]
)
def test_a_trials_key_knows_what_takes_part(tiny_document, changes):
    assert key(tiny_document, changes) != key(tiny_document)


@pytest.mark.parametrize("changes", [{"cnn.dropout": 0.9}, {"dataset": "the same.npz"}])
def test_a_trials_key_does_not_know_what_takes_no_part(tiny_document, changes):
    assert key(tiny_document, changes) == key(tiny_document)


def test_a_trials_key_knows_model_data_and_what_is_evaluated(tiny_document):
    other_data = DATA | {"splits": {"train": {"x_sha256": "1", "y_sha256": "3"}}}
    keys = {
        key(tiny_document),
        key(tiny_document, model="cnn"),
        key(tiny_document, evaluate="val"),
        key(tiny_document, data=other_data),
        key(tiny_document, data=DATA | {"class_names": list("abc")}),
    }
    assert len(keys) == 5


def test_the_keys_code_is_all_that_a_trial_imports_but_bystanders():
    imported = {path.removeprefix("stages/").removesuffix(".py")
                for path in files_of("stages/study/trial.py") if path.endswith(".py")}  # fmt: skip
    bystanders = {
        "archive", "archive_checks", "checkpoints",  # a trial saves neither model nor checkpoint
        "digests", "files", "params", "prepared",  # values in the key, or how files are read
        "train",  # how a run is timed
    }  # fmt: skip
    assert imported == set(CODE) | bystanders
