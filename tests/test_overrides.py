"""Dotted settings: nested, set in a document, and written as `dvc exp run` lines."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from stages.common.cli import StageError
from stages.common.overrides import exp_run_command, flatten, parse_overrides, with_overrides

DOCUMENT = {"epochs": 1, "cnn": {"filters": [8], "dense": 4}, "dataset": "digits"}


def test_settings_get_dotted_keys():
    assert flatten(DOCUMENT) == {
        "epochs": 1, "cnn.filters": [8], "cnn.dense": 4, "dataset": "digits",
    }  # fmt: skip
    assert flatten([1]) == [1]


def test_overrides_change_a_copy():
    changed = with_overrides(DOCUMENT, {"cnn.dense": 9, "epochs": 2})
    assert flatten(changed) == flatten(DOCUMENT) | {"cnn.dense": 9, "epochs": 2}
    assert DOCUMENT["cnn"]["dense"] == 4


@pytest.mark.parametrize("key", ["epoch", "cnn.units", "rnn.dense", "epochs.cnn", "cnn.dense.x"])
def test_an_unknown_key_is_refused(key):
    with pytest.raises(StageError, match=f"^{key} is not a key of params.yaml"):
        with_overrides(DOCUMENT, {key: 1})


def test_settings_are_read_as_yaml_1_2():
    settings = ["epochs=7", "lstm.units=[4, 5]", "cnn.learning_rate=1e-05", "dataset=a=b"]
    assert parse_overrides(settings) == {
        "epochs": 7, "lstm.units": [4, 5], "cnn.learning_rate": 1e-05, "dataset": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["", "=[3", '=!!int ""', "=2024-13-45", "={", "=\x00", "=!x y"])
def test_a_setting_that_cannot_be_read_is_named(value):
    with pytest.raises(StageError, match=f"^-S seed{re.escape(value.replace(chr(0), ''))}"):
        parse_overrides([f"seed{value}"])


@pytest.mark.parametrize(
    "value",
    [
        1, 0.5, 1e-05, True, False, [1, 2], "digits", "data/my images.npz", "it's a \"b\".npz",
        "a\\b.npz", "a\\\\", 'a\\"b', "$HOME `x` ;&|.npz", "Kühe=1,2.npz", "[a].npz", "{a: b}.npz",
    ],
)  # fmt: skip
def test_dvc_reads_an_experiments_line_as_the_same_settings(tmp_path, value):
    from dvc.utils.hydra import apply_overrides

    words = shlex.split(exp_run_command({"cnn": {"dense": 3}, "dataset": value}))
    assert words[:4] == ["dvc", "exp", "run", "-S"]
    assert words[5::2] == ["-S"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    apply_overrides(str(tmp_path / "params.yaml"), words[4::2])
    found = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    found["dataset"] = float(found["dataset"]) if value == 1e-05 else found["dataset"]
    assert found == with_overrides(DOCUMENT, {"cnn.dense": 3, "dataset": value})
