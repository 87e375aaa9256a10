"""Parameters are typed, complete and locked. A mistake gives one line that says what is allowed."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import yaml
from conftest import ROOT, set_keys

from stages.common.cli import StageError
from stages.common.overrides import flatten
from stages.common.params import load_params, parse_params, read_yaml

AT_LEAST_0, AT_LEAST_1 = "greater than or equal to 0", "greater than or equal to 1"
WRONG = {  # what the message must say is allowed: keys and values that are not
    AT_LEAST_0: [("seed", -1), ("train.clip_norm", -1.0), ("train.threads", -1),
                 ("train.early_stopping", -1), ("cnn.dropout", -0.1), ("lstm.shift", -1),
                 ("lstm.weight_decay", -0.1)],
    AT_LEAST_1: [("epochs", 0), ("train.batch_size", 0), ("cnn.kernel_size", 0)],
    "greater than 0": [("prepare.val_fraction", 0.0), ("cnn.learning_rate", 0.0)],
    "less than 1": [("prepare.val_fraction", 1.0), ("train.warmup", 1), ("cnn.dropout", 1.0),
                    ("cnn.label_smoothing", 1.0), ("cnn.zoom", 1.0)],
    "less than 2147483648": [("seed", 2**31)],
    "less than or equal to 1000000": [("train.batch_size", 10**6 + 1), ("cnn.dense", 10**30)],
    "less than or equal to 180": [("cnn.rotation", 181.0)],
    "integer": [("epochs", 2.5), ("epochs", "ten"), ("epochs", True),
                ("epochs", None), ("prepare.split_seed", 1.5), ("hybrid.dense", "64")],
    "number": [("cnn.dropout", "half"), *(("cnn.learning_rate", text) for text in (
        "1e", "e5", "0x1e", "1_0", "nan", "inf", "", " 1"))],
    "finite": [("cnn.learning_rate", float("nan")), ("cnn.learning_rate", float("inf"))],
    "boolean": [("cnn.batch_norm", "yes"), ("lstm.bidirectional", 1)],
    "string": [("dataset", 7)], "section": [("prepare", 3)], "list": [("cnn.filters", "32")],
    "at least 1 item": [("cnn.filters", [])],
    "mnist, fashion_mnist, digits, digit_sequences or a path such as data/raw/my.npz": [
        ("dataset", "minst")],
    "'auto', 'first' or 'last'": [("prepare.channels", "end"), ("prepare.label_column", 1)],
    "less than or equal to 65535": [("prepare.white", 65536)],
    "less than or equal to 4096": [("prepare.image_size", 4097)],
    "'adam', 'adamw', 'rmsprop' or 'sgd'": [("train.optimizer", "adagrad")],
    "'constant', 'cosine' or 'one_cycle'": [("train.schedule", "linear")],
    "'float32' or 'mixed_bfloat16'": [("train.precision", "float16")],
    "'valid' or 'same'": [("cnn.padding", "full")],
    "'mean' or 'channels'": [("cnn.frames", "last")],
    "'flatten' or 'average'": [("cnn.head", "max"), ("hybrid.head", "dense")],
    "'lstm', 'gru' or 'rnn'": [("lstm.cell", "elman"), ("hybrid.cell", None)],
    "'rows', 'columns' or 'both'": [("lstm.read", "diagonals")],
    "'last' or 'mean'": [("lstm.pool", "max"), ("hybrid.pool", True)],
    "'rows' or 'convlstm'": [("hybrid.kind", "columns")],
}  # fmt: skip


def message(document: object) -> str:
    """Return the line with which a document is refused."""
    with pytest.raises(StageError, match=r"^params\.yaml") as refusal:
        parse_params(document)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value", "allowed"), [(*each, allowed) for allowed in WRONG for each in WRONG[allowed]]
)
def test_a_wrong_value_gives_key_value_and_what_is_allowed(tiny_document, key, value, allowed):
    text = message(set_keys(tiny_document, {key: value}))
    assert text.startswith(f"params.yaml: {key} is {value!r}; ")
    assert allowed in text


@pytest.mark.parametrize(
    ("key", "value"),
    [("dataset", 7), ("cnn", 3), ("train", "fast"), ("cnn.dropout", 2), ("lstm.units", []),
     ("epochs", 0), ("cnn.flip", "maybe"), ("cnn.rotation", 200)],
)  # fmt: skip
def test_a_mistake_shows_an_example_that_is_accepted(tiny_document, key, value):
    with pytest.raises(StageError, match="for example") as refusal:
        parse_params(set_keys(tiny_document, {key: value}))
    example, text = str(refusal.value).rpartition("for example ")[2].split("=")
    parse_params(set_keys(tiny_document, {example: yaml.safe_load(text)}))


def test_a_wrong_item_of_a_list_gives_its_position(tiny_document):
    text = message(set_keys(tiny_document, {"lstm.units": [8, 0]}))
    assert f"lstm.units.1 is 0; it should be {AT_LEAST_1}" in text


@pytest.mark.parametrize("key", ["epoch", "train.batchsize", "lstm.filters", "prepare.seed"])
def test_an_unknown_key_gives_the_known_keys(tiny_document, key):
    *section, name = key.split(".")
    text = message(set_keys(tiny_document, {key: 1}))
    assert f"unknown key '{key}'" in text
    known = tiny_document[section[0]] if section else tiny_document
    assert set(text.partition("allowed here: ")[2].split(", ")) == set(known) - {name}


def test_every_key_is_required(tiny_document):
    keys = [*flatten(tiny_document), "prepare", "train"]
    assert len(keys) > 50
    for key in keys:
        document = set_keys(tiny_document, {})
        *section, name = key.split(".")
        del (document[section[0]] if section else document)[name]
        assert f"key {key!r} is missing" in message(document)


def test_the_models_are_the_sections_with_a_model_file_in_the_order_of_the_file(tiny_document):
    assert list(parse_params(tiny_document).models) == ["cnn", "lstm", "hybrid"]
    swapped = {"hybrid": tiny_document["hybrid"]} | tiny_document
    del swapped["cnn"]
    assert list(parse_params(swapped).models) == ["hybrid", "lstm"]
    del swapped["lstm"], swapped["hybrid"]
    assert "has no section of a model (cnn, hybrid, lstm)" in message(swapped)


def test_the_number_of_other_mistakes_is_given(tiny_document):
    assert message(set_keys(tiny_document, {"epochs": 0, "seed": -1})).endswith("(and 1 more)")


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("lstm.units", 64, [64]), ("cnn.filters", 32.0, [32]), ("epochs", 2.0, 2),
        ("train.optimizer", "Adam", "adam"), ("train.schedule", "One-Cycle", "one_cycle"),
        ("dataset", "Fashion-MNIST", "fashion_mnist"), ("cnn.padding", "SAME", "same"),
        ("dataset", "digit-sequences", "digit_sequences"), ("lstm.cell", "GRU", "gru"),
        ("cnn.dropout", 0, 0.0),
    ],
)  # fmt: skip
def test_values_are_accepted_in_the_forms_that_people_type(tiny_document, key, given, read):
    params = parse_params(set_keys(tiny_document, {key: given}))
    assert flatten(params.model_dump())[key] == read


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-05", 1e-05), ("1E-5", 1e-05), ("3e2", 300.0), ("010", 10), ("0o10", 8), ("yes", "yes"),
     ("1:30", "1:30"), ("off", "off"), ("true", True)],
)  # fmt: skip
def test_yaml_means_the_same_here_as_in_dvc(tmp_path, text, value):
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "some.yaml"
    path.write_text(f"key: {text}\n", encoding="utf-8")
    assert read_yaml(path) == {"key": value} == load_yaml(path)


def test_a_mistake_in_the_file_says_how_to_undo_it(tiny_document, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(set_keys(tiny_document, {"cnn.dropout": 2})), encoding="utf-8")
    with pytest.raises(StageError, match="undo all changes of the file with `git checkout"):
        load_params(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((content, "is not YAML") for content in (
            b"epochs: [", b"epochs: \xff", b"!!python/object/apply:os.system ['true']",
            b"[" * 5000, b"epochs: !!int ''", b"epochs: !!bool maybe", b"epochs: !!timestamp soon",
            b"epochs: 2001-99-99",
        )),
        *((content, "found duplicate key")
          for content in (b"epochs: 1\nepochs: 2", b"cnn: {dense: 1, dense: 2}")),
        (b"a: &a [*a]", "params.yaml"),
        (b"#" * 2**17, "is larger than 64 KiB"),
        *((content, "should be a mapping") for content in (b"", b"[]", b"epochs", b"3")),
    ],
)  # fmt: skip
def test_a_file_that_is_not_plain_yaml_is_refused(tmp_path, content, reason):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(StageError, match=re.escape(reason)):
        load_params(tmp_path / "params.yaml")


def test_a_number_of_thousands_of_digits_is_refused(tiny_document):
    assert "a number too long to show" in message(set_keys(tiny_document, {"epochs": 10**5000}))


def test_a_missing_file_tells_where_to_run_the_command(tmp_path):
    with pytest.raises(StageError, match="is missing; run this command in the repository's root"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "report"])
def test_every_stage_checks_the_parameters_first(tiny_document, tmp_path, monkeypatch, stage):
    """It stops before it reads or writes anything else."""
    document = set_keys(tiny_document, {"epochs": 0})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage", "cnn"])
    with pytest.raises(StageError, match=f"epochs is 0; it should be {AT_LEAST_1}"):
        importlib.import_module(f"stages.{stage}").main()
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_every_key_of_the_file_has_a_comment():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    keys = re.findall(r"^ *\w+:.*$", text, re.M)
    assert len(keys) > 50
    assert [line for line in keys if not re.search(r"\s#\s\S", line)] == []
