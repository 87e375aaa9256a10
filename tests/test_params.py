"""Parameters are typed, complete and locked; a mistake ends in one line."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from conftest import ROOT, TINY, set_keys

from stages.files import StageError
from stages.params import MODELS, load_params, parse_params

WRONG = [  # key, value, what the message must say is allowed
    ("epochs", 0, "greater than or equal to 1"),
    ("epochs", 2.5, "integer"),
    ("epochs", "ten", "integer"),
    ("epochs", True, "integer"),
    ("epochs", None, "integer"),
    ("seed", -1, "greater than or equal to 0"),
    ("seed", 2**31, "less than 2147483648"),
    ("dataset", "minst", "mnist, fashion_mnist, digits or the path of an .npz file"),
    ("dataset", 7, "string"),
    ("prepare", 3, "dictionary"),
    ("prepare.val_fraction", 0.0, "greater than 0"),
    ("prepare.val_fraction", 1.0, "less than 1"),
    ("prepare.split_seed", 1.5, "integer"),
    ("train.batch_size", 0, "greater than or equal to 1"),
    ("train.batch_size", 10**6 + 1, "less than or equal to 1000000"),
    ("train.optimizer", "adagrad", "'adam', 'adamw', 'rmsprop' or 'sgd'"),
    ("train.schedule", "linear", "'constant', 'cosine' or 'one_cycle'"),
    ("train.precision", "float16", "'float32' or 'mixed_bfloat16'"),
    ("train.warmup", 1, "less than 1"),
    ("train.clip_norm", -1.0, "greater than or equal to 0"),
    ("train.threads", -1, "greater than or equal to 0"),
    ("train.early_stopping", -1, "greater than or equal to 0"),
    ("cnn.filters", [], "at least 1 item"),
    ("cnn.filters", 32, "list"),
    ("cnn.padding", "full", "'valid' or 'same'"),
    ("cnn.kernel_size", 0, "greater than or equal to 1"),
    ("cnn.batch_norm", "yes", "boolean"),
    ("cnn.dropout", 1.0, "less than 1"),
    ("cnn.dropout", -0.1, "greater than or equal to 0"),
    ("cnn.dropout", "half", "number"),
    ("cnn.learning_rate", 0.0, "greater than 0"),
    ("cnn.learning_rate", float("nan"), "finite"),
    ("cnn.learning_rate", float("inf"), "finite"),
    ("cnn.label_smoothing", 1.0, "less than 1"),
    ("cnn.rotation", 181.0, "less than or equal to 180"),
    ("cnn.zoom", 1.0, "less than 1"),
    ("lstm.bidirectional", 1, "boolean"),
    ("lstm.shift", -1, "greater than or equal to 0"),
    ("lstm.weight_decay", -0.1, "greater than or equal to 0"),
    ("hybrid.dense", "64", "integer"),
    ("cnn.dense", 10**30, "less than or equal to 1000000"),
]  # fmt: skip


def message(document: object) -> str:
    """Return the one line with which a document is refused."""
    with pytest.raises(StageError) as refusal:
        parse_params(document)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.startswith("params.yaml")
    return text


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(tiny_document, key, value, allowed):
    text = message(set_keys(tiny_document, {key: value}))
    assert key in text
    assert f"{value!r}" in text
    assert allowed in text


@pytest.mark.parametrize("position", [0, 1])
def test_a_wrong_item_of_a_list_is_named_by_its_place(tiny_document, position):
    units = [8, 8]
    units[position] = 0
    text = message(set_keys(tiny_document, {"lstm.units": units}))
    assert f"lstm.units.{position} is 0" in text
    assert "greater than or equal to 1" in text


@pytest.mark.parametrize("key", ["epoch", "train.batchsize", "lstm.filters", "prepare.seed"])
def test_an_unknown_key_is_named_beside_the_known_ones(tiny_document, key):
    *section, name = key.split(".")
    text = message(set_keys(tiny_document, {key: 1}))
    assert f"unknown key '{key}'" in text
    known = tiny_document[section[0]] if section else tiny_document
    allowed = text.partition("allowed here: ")[2].split(", ")
    assert sorted(allowed) == sorted(set(known) - {name})


def test_every_key_is_needed(tiny_document):
    for section in [
        None,
        *(key for key, value in tiny_document.items() if isinstance(value, dict)),
    ]:
        for key in tiny_document[section] if section else tiny_document:
            document = set_keys(tiny_document, {})
            del (document[section] if section else document)[key]
            dotted = f"{section}.{key}" if section else key
            assert f"key {dotted!r} is missing" in message(document)


def test_the_number_of_further_mistakes_is_said(tiny_document):
    assert message(set_keys(tiny_document, {"epochs": 0, "seed": -1})).endswith("(and 1 more)")


@pytest.mark.parametrize("text", ["1e-05", "1E-5", "3e2", "1.5e3"])
def test_a_number_that_yaml_takes_for_text_is_a_number(tiny_document, text):
    value = yaml.safe_load(text)
    assert isinstance(value, str), "what YAML 1.1 makes of it, and the reason for the loader"
    params = parse_params(set_keys(tiny_document, {"cnn.learning_rate": value}))
    assert params.cnn.learning_rate == float(text)


@pytest.mark.parametrize("text", ["1e", "e5", "0x1e", "1_0", "nan", "inf", "", " 1"])
def test_text_that_is_no_number_is_refused(tiny_document, text):
    message(set_keys(tiny_document, {"cnn.learning_rate": text}))


def test_a_whole_number_will_do_for_a_fraction_but_not_the_other_way(tiny_document):
    params = parse_params(set_keys(tiny_document, {"cnn.dropout": 0}))
    assert isinstance(params.cnn.dropout, float)
    message(set_keys(tiny_document, {"epochs": 1.0}))


@pytest.mark.parametrize("document", [None, [], "epochs", 3])
def test_a_document_that_is_no_mapping_is_refused(document):
    assert f"should be a mapping, not {type(document).__name__}" in message(document)


def test_parameters_cannot_be_changed_after_loading(make_params):
    params = make_params()
    with pytest.raises(ValueError, match="frozen"):
        params.epochs = 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs: [", "is not YAML"),
        (b"epochs: \xff", "is not YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"epochs: !!int ''", "is not YAML"),
        (b"epochs: !!bool maybe", "is not YAML"),
        (b"epochs: !!timestamp soon", "is not YAML"),
        (b"epochs: " + b"1:" * 400 + b"1.0", "is not YAML"),
        (b"epochs: 2001-99-99", "is not YAML"),
        (b"epochs: 1\nepochs: 2", "a key is there twice"),
        (b"cnn: {dense: 1, dense: 2}", "a key is there twice"),
        (b"a: &a [*a]", "an alias (*) may stand for a single value only"),
        (b"a: &a {b: 1}\nc: {<<: *a}", "an alias (*) may stand for a single value only"),
        (b"a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "may stand for a single value only"),
        (b"#" * 2**17, "has more than 65536 bytes"),
        (b"", "should be a mapping"),
    ],
)
def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(StageError) as refusal:
        load_params(path)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_alias_may_stand_for_a_single_value(tiny_document, tmp_path):
    document = set_keys(tiny_document, {"epochs": 7, "seed": 7})
    text = yaml.safe_dump(document, sort_keys=False)
    text = re.sub(r"^epochs: 7$", "epochs: &seven 7", text, flags=re.M)
    text = re.sub(r"^seed: 7$", "seed: *seven", text, flags=re.M)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml") == parse_params(document)
    assert "*seven" in text


def test_a_number_of_thousands_of_digits_is_refused_and_not_shown(tiny_document):
    assert "a number too long to show" in message(set_keys(tiny_document, {"epochs": 10**5000}))


def test_text_that_is_nearly_a_number_is_refused_at_once(tiny_document):
    started = time.process_time()
    message(set_keys(tiny_document, {"cnn.dropout": "1" * 60_000 + "x"}))
    assert time.process_time() - started < 1


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(StageError, match="run stages from the repository's root"):
        load_params(tmp_path / "params.yaml")


def test_models_are_the_sections_of_the_models(tiny_document):
    assert MODELS == ("cnn", "lstm", "hybrid")
    for name in MODELS:
        assert {"dense", "dropout", "learning_rate"} <= set(tiny_document[name])


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate", "report"])
def test_every_stage_checks_the_parameters_first(project, stage):
    """One line, exit status 1, no traceback, and nothing written."""
    project.set({"epochs": 0})
    done = project.stage(stage, *(["cnn"] if stage == "train" else []), status=1)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: params.yaml: epochs is 0; it should be greater than or equal to 1"
    ]
    assert not project.path("data").exists()
    assert not project.path("metrics").exists()
    assert not project.path("plots").exists()


def test_every_key_of_the_file_says_what_it_is():
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    keys = [line for line in text.splitlines() if re.match(r"\s*\w+:", line)]
    assert len(keys) > 50
    assert [line for line in keys if not re.search(r"\s#\s\S", line)] == []


def test_the_tiny_parameters_are_parameters(make_params):
    """Guard the fixture: each key of TINY is there, and set."""
    params = make_params()
    for key, value in TINY.items():
        found = params
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value
