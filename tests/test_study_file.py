"""A study's file: which trials it stands for, and what is said of a mistake in it."""

from __future__ import annotations

from itertools import product

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.files import StageError
from stages.params import MODELS, parse_params
from stages.study.file import Study, changed_settings, flat, read_study, trials

VALUES = {
    "dataset": st.sampled_from(["mnist", "digits", "own.npz"]),
    "model": st.sampled_from(MODELS),
    "epochs": st.integers(1, 50),
    "seed": st.integers(0, 2**31 - 1),
    "train.batch_size": st.integers(1, 4096),
    "cnn.filters": st.lists(st.integers(1, 64), min_size=1, max_size=3),
    "lstm.learning_rate": st.floats(1e-6, 1, allow_nan=False),
}
GRIDS = st.fixed_dictionaries(
    {key: st.lists(VALUES[key], min_size=1, max_size=3, unique=True) for key in ("model", "seed")},
    optional={
        key: st.lists(values, min_size=1, max_size=3, unique_by=repr)
        for key, values in VALUES.items()
        if key not in ("model", "seed")
    },
)


def make_study(grid, **others) -> Study:
    facts = {"description": "a test", "evaluate": "test", "grid": grid} | others
    return Study.model_validate(facts)


def points(grid: dict, tiny_document: dict) -> set[str]:
    """Return what tells the trials of a grid apart."""
    plain = {key: tiny_document[key] for key in ("dataset", "epochs")}
    return {
        repr(sorted((plain | dict(zip(grid, values, strict=True))).items()))
        for values in product(*grid.values())
    }


@settings(deadline=None)
@given(grids=st.lists(GRIDS, min_size=1, max_size=2), variants=st.integers(1, 3))
def test_a_study_has_each_point_of_its_grids_once_a_variant(tiny_document, grids, variants):
    named = {f"v{i}": {"train.clip_norm": float(i)} for i in range(variants)}
    found = trials(make_study(grids, variants=named), tiny_document, cpus=1)
    got: dict[str, list[str]] = {}
    for trial in found:
        point = {"seed": trial.params.seed} | trial.cell
        got.setdefault(point.pop("variant"), []).append(repr(sorted(point.items())))
    expected = set().union(*(points(grid, tiny_document) for grid in grids))
    assert set(got) == set(named)
    assert all(sorted(mine) == sorted(expected) for mine in got.values())
    for trial in found:
        assert trial.params.train.clip_norm == float(trial.cell["variant"][1:])
        used = flat(trial.params.model_dump())
        for key, value in trial.cell.items():
            if key not in ("variant", "model"):
                assert used[key] == value, key


def test_what_a_study_does_not_set_is_as_in_params_yaml(tiny_document):
    grid = {"model": ["lstm"], "seed": [3]}
    (trial,) = trials(make_study(grid), tiny_document, cpus=2)
    expected = flat(parse_params(tiny_document).model_dump())
    assert flat(trial.params.model_dump()) == expected | {"seed": 3, "train.threads": 2}
    changed = dict(changed_settings(trial, parse_params(tiny_document)))
    assert changed == {"seed": 3, "train.threads": 2}


def test_settings_of_other_models_are_not_among_a_trials_changes(tiny_document):
    study = make_study({"model": ["lstm"], "seed": [1], "cnn.dense": [99], "lstm.dense": [0]})
    (trial,) = trials(study, tiny_document, cpus=1)
    changed = dict(changed_settings(trial, parse_params(tiny_document)))
    assert "cnn.dense" not in changed
    assert changed["lstm.dense"] == 0


def test_of_two_settings_the_later_holds_base_variants_when_grid(tiny_document):
    study = make_study(
        {"model": ["cnn"], "seed": [1], "epochs": [1, 2], "cnn.zoom": [0.4]},
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
    }  # fmt: skip


def test_a_grids_keys_are_dotted_or_nested(tiny_document):
    nested = {
        "model": ["cnn"],
        "seed": [1],
        "train": {"batch_size": [32, 64]},
        "cnn": {"dense": [8]},
    }
    found = trials(make_study(nested), tiny_document, cpus=1)
    assert [trial.params.train.batch_size for trial in found] == [32, 64]
    assert [trial.cell["cnn.dense"] for trial in found] == [8, 8]


def test_a_rule_may_ask_for_what_only_params_yaml_sets_nested_or_dotted(tiny_document):
    study = make_study(
        {"model": ["cnn"], "seed": [1]},
        when=[
            {
                "train": {"batch_size": tiny_document["train"]["batch_size"]},
                "set": {"cnn.shift": 3},
            },
            {"cnn.zoom": [tiny_document["cnn"]["zoom"], 0.9], "set": {"cnn.rotation": 4.0}},
        ],
    )
    (trial,) = trials(study, tiny_document, cpus=1)
    assert (trial.section.shift, trial.section.rotation) == (3, 4.0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"datset": "digits"}, "datset is not a key"),
        ({"train": {"batchsize": 1}}, "train.batchsize is not a key"),
        ({"dataset": "fashion_mnist"}, "no trial of the grid meets {'dataset': 'fashion_mnist'}"),
    ],
)
def test_a_rule_that_never_applies_is_refused(tiny_document, rule, said):
    study = make_study({"model": ["cnn"], "seed": [1]}, when=[rule | {"set": {"cnn.shift": 1}}])
    with pytest.raises(StageError, match=said):
        trials(study, tiny_document, cpus=1)


def test_threads_that_follow_the_machine_are_refused(tiny_document):
    study = make_study({"model": ["cnn"], "seed": [1]}, base={"train.threads": 0})
    with pytest.raises(StageError, match=r"train\.threads is 0"):
        trials(study, tiny_document, cpus=1)


WRONG = [
    ({"grid": {"model": ["cnn"]}}, "no 'seed'"),
    ({"grid": {"model": [], "seed": [1]}}, "grid"),
    ({"grid": []}, "grid"),
    ({"evaluate": "train"}, "evaluate"),
    ({"cpus": 0}, "cpus"),
    ({"unknown": 1}, "unknown"),
    ({"when": [{"dataset": "mnist"}]}, "`set:"),
    ({"published": [{"dataset": "mnist"}]}, "published"),
    ({"variants": {"ours": {}, "": {}}}, "no name"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_mistake_in_a_study_ends_in_one_line(tmp_path, change, said):
    path = tmp_path / "study.yaml"
    grid = {"model": ["cnn"], "seed": [1]}
    document = {"description": "a test", "evaluate": "test", "grid": grid} | change
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(StageError) as refusal:
        read_study(path)
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=r"study\.yaml"):
        read_study(path)


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"model": ["mlp"], "seed": [1]}, "model is 'mlp'"),
        ({"model": ["cnn"], "seed": [1], "cnn.depth": [3]}, "cnn.depth"),
        ({"model": ["cnn"], "seed": [1], "cnn.dense.x": [3]}, "cnn.dense.x"),
        ({"model": ["cnn"], "seed": [-1]}, "seed is -1"),
        ({"model": ["cnn"], "seed": [1], "cnn.filters": [32]}, "cnn.filters is 32"),
    ],
)
def test_a_key_or_value_that_params_yaml_would_refuse_is_refused(tiny_document, grid, said):
    with pytest.raises(StageError, match=said.replace(".", r"\.")):
        trials(make_study(grid), tiny_document, cpus=1)
