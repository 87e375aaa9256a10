"""A study file: the trials that it lists, and the messages for mistakes in it."""

from __future__ import annotations

from itertools import product

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.cli import StageError
from stages.common.overrides import flatten
from stages.common.params import model_names, parse_params
from studies.engine.grid import Study, changed_settings, read_study, trials

VALUES = {
    "model": st.sampled_from(model_names()),
    "seed": st.integers(0, 2**31 - 1),
    "dataset": st.sampled_from(["mnist", "digits", "own.npz"]),
    "epochs": st.integers(1, 50),
    "train.batch_size": st.integers(1, 4096),
    "cnn.filters": st.lists(st.integers(1, 64), min_size=1, max_size=3),
    "lstm.learning_rate": st.floats(1e-6, 1, allow_nan=False),
}
LISTS = {
    key: st.lists(each, min_size=1, max_size=3, unique_by=repr) for key, each in VALUES.items()
}
GRIDS = st.fixed_dictionaries(
    {key: LISTS.pop(key) for key in ("model", "seed")},
    optional=LISTS,
)
CNN = {"model": ["cnn"], "seed": [1]}


def make_study(grid, **others) -> Study:
    facts = {"description": "a test", "evaluate": "test", "grid": grid} | others
    return Study.model_validate(facts)


@settings(deadline=None)
@given(grids=st.lists(GRIDS, min_size=1, max_size=2), variants=st.integers(1, 3))
def test_each_variant_has_each_point_of_the_grids_once(tiny_document, grids, variants):
    named = {f"v{i}": {"train.clip_norm": float(i)} for i in range(variants)}
    found = trials(make_study(grids, variants=named), tiny_document, cpus=1)
    got = [repr(sorted((trial.cell | {"seed": trial.params.seed}).items())) for trial in found]
    defaults = {key: tiny_document[key] for key in ("dataset", "epochs")}
    expected = {
        repr(sorted((defaults | point | {"variant": variant}).items()))
        for variant in named
        for grid in grids
        for values in product(*grid.values())
        if (point := dict(zip(grid, values, strict=True)))
    }
    assert sorted(got) == sorted(expected)
    for trial in found:
        assert trial.params.train.clip_norm == float(trial.cell["variant"][1:])
        used = flatten(trial.params.model_dump()) | {"variant": trial.cell["variant"]}
        assert used | trial.cell == used | {"model": trial.model}


def test_other_keys_are_those_of_params_yaml(tiny_document):
    (trial,) = trials(make_study({"model": ["lstm"], "seed": [3]}), tiny_document, cpus=2)
    committed = parse_params(tiny_document)
    set_here = {"seed": 3, "train.threads": 2}
    assert flatten(trial.params.model_dump()) == flatten(committed.model_dump()) | set_here
    assert dict(changed_settings(trial, committed)) == set_here


def test_changed_settings_leave_out_other_models(tiny_document):
    study = make_study({"model": ["lstm"], "seed": [1], "cnn.dense": [99], "lstm.dense": [0]})
    (trial,) = trials(study, tiny_document, cpus=1)
    changed = dict(changed_settings(trial, parse_params(tiny_document)))
    assert (changed["lstm.dense"], "cnn.dense" in changed) == (0, False)


def test_precedence_is_base_variants_when_grid(tiny_document):
    study = make_study(
        CNN | {"epochs": [1, 2], "cnn.zoom": [0.4]},
        base={"cnn": {"shift": 1, "rotation": 1.0, "dropout": 0.1, "zoom": 0.1}},
        variants={"plain": {"cnn.rotation": 2.0, "cnn.dropout": 0.2}, "ours": {}},
        when=[
            {"variant": "plain", "set": {"cnn.dropout": 0.3, "cnn.zoom": 0.3}},
            {"epochs": [2, 3], "set": {"cnn": {"shift": 5}}},
        ],
    )
    sections = {
        (trial.cell["variant"], trial.params.epochs): trial.section
        for trial in trials(study, tiny_document, cpus=1)
    }
    got = {key: (p.shift, p.rotation, p.dropout, p.zoom) for key, p in sections.items()}
    assert got == {
        ("plain", 1): (1, 2.0, 0.3, 0.4),
        ("plain", 2): (5, 2.0, 0.3, 0.4),
        ("ours", 1): (1, 1.0, 0.1, 0.4),
        ("ours", 2): (5, 1.0, 0.1, 0.4),
    }


def test_grid_keys_are_dotted_or_nested(tiny_document):
    nested = CNN | {"train": {"batch_size": [32, 64]}, "cnn": {"dense": [8]}}
    found = trials(make_study(nested), tiny_document, cpus=1)
    assert [trial.params.train.batch_size for trial in found] == [32, 64]
    assert [trial.cell["cnn.dense"] for trial in found] == [8, 8]


def test_a_rule_sees_the_values_of_params_yaml(tiny_document):
    batch, zoom = tiny_document["train"]["batch_size"], tiny_document["cnn"]["zoom"]
    rules = [
        {"train": {"batch_size": batch}, "set": {"cnn.shift": 3}},
        {"cnn.zoom": [zoom, 0.9], "set": {"cnn.rotation": 4.0}},
    ]
    (trial,) = trials(make_study(CNN, when=rules), tiny_document, cpus=1)
    assert (trial.section.shift, trial.section.rotation) == (3, 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"when": [{"datset": "digits", "set": {"cnn.shift": 1}}]}, "datset is not a key"),
        ({"when": [{"train": {"batch": 1}, "set": {}}]}, "train.batch is not a key"),
        ({"when": [{"dataset": "mnist", "set": {}}]}, "no trial of the grid meets .*'mnist'"),
        ({"base": {"train.threads": 0}}, "need a fixed train.threads"),
        ({"grid": CNN | {"model": ["mlp"]}}, "model is 'mlp'; it should be one of cnn, lstm"),
        ({"grid": CNN | {"cnn.depth": [3]}}, "cnn.depth is not a key"),
        ({"grid": CNN | {"seed": [-1]}}, "seed is -1"),
        ({"grid": CNN | {"cnn.dense": ["many"]}}, "cnn.dense is .many"),
    ],
)
def test_keys_and_values_that_params_yaml_would_refuse_are_refused(tiny_document, change, message):
    with pytest.raises(StageError, match=message):
        trials(make_study(**{"grid": CNN} | change), tiny_document, cpus=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"model": ["cnn"]}}, "no 'seed'"),
        ({"grid": {"model": [], "seed": [1]}}, "grid"),
        ({"grid": []}, "grid"),
        ({"evaluate": "train"}, "evaluate"),
        ({"cpus": 0}, "cpus"),
        ({"unknown": 1}, "unknown"),
        ({"when": [{"dataset": "mnist"}]}, "`set:"),
        ({"published": [{"dataset": "mnist"}]}, "published"),
        ({"variants": {"ours": {}, "": {}}}, "needs a name"),
        ("- 1", "should be a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_in_the_file_gives_one_line(tmp_path, change, message):
    path = tmp_path / "study.yaml"
    document = {"description": "a test", "evaluate": "test", "grid": CNN}
    text = change if isinstance(change, str) else yaml.safe_dump(document | change)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StageError) as refusal:
        read_study(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)
