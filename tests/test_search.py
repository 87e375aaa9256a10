"""The search for recipes: equal effort, resumable, without the test set."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
import yaml
from conftest import ROOT, Project

from stages.common.params import parse_params, read_yaml
from studies.engine import search as engine
from studies.engine.pool import has_ray
from studies.engine.search import Search, Trained, best, choose

RECORDED = ROOT / "studies/results"
SEARCH = Search.model_validate(read_yaml(ROOT / engine.SEARCH))
TINY_SEARCH = {
    "epochs": 1, "seed": 1, "trials": 3, "batch": 2, "finalists": 2, "finalist_seeds": [2, 3],
    "cpus": 1, "flip": {"digits": [False]},
    "space": {"learning_rate": [0.003, 0.01, 0.03], "warmup": [0.25, 0.5], "batch_size": [64, 256]},
    "architectures": {"lstm": {"last": {"units": [8]}, "mean": {"units": [8], "pool": "mean"}}},
    "today": {"digits": {"lstm": {"architecture": "last", "learning_rate": 0.01}}},
}  # fmt: skip


def trained(number: int, accuracy: float, key: str = "") -> Trained:
    return Trained(number, "cnn", {}, 1, key or str(number), {"val_accuracy": accuracy})


def test_the_best_trials_are_distinct_and_none_diverged():
    diverged = Trained(5, "cnn", {}, 1, "5", None)
    found = [trained(1, 0.97), trained(2, 0.98), trained(3, 0.98), trained(4, 0.98, "3"), diverged]
    assert [each.number for each in best(found, 3)] == [2, 3, 1]
    assert len(best(found, 9)) == 3


def test_the_best_mean_wins_but_a_tie_goes_to_the_cheapest():
    clear = [trained(n, accuracy) for n, accuracy in [(1, 0.99), (1, 0.992), (2, 0.98), (2, 0.981)]]
    found = choose(clear, {1: 900, 2: 100})
    assert (found["tied"], found["chosen"]) == ([1], 1)
    # the standard error of trial 1 is 0.001: trials 2 and 4 tie, trial 3 does not
    others = {2: (0.9895, 0.9915), 3: (0.98, 0.99), 4: (0.99, 0.9912)}
    more = [trained(n, accuracy) for n, pair in others.items() for accuracy in pair]
    found = choose(clear[:2] + more, {1: 900, 2: 500, 3: 100, 4: 500})
    assert (found["tied"], found["chosen"]) == ([1, 2, 4], 4)
    assert found["finalists"][2]["val_accuracy_mean"] == pytest.approx(0.9905)
    assert found["finalists"][1]["val_accuracy_std"] == pytest.approx(0.002 / math.sqrt(2))
    assert found["finalists"][2]["multiply_adds"] == 500


@pytest.mark.parametrize("dataset", SEARCH.today)
def test_every_model_has_the_same_number_of_choices(dataset):
    assert len({len(each) for each in SEARCH.architectures.values()}) == 1
    for model in SEARCH.architectures:
        today = engine.todays(SEARCH, dataset, model)
        assert today.keys() == {*engine.options(SEARCH, dataset), "architecture"}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("model", SEARCH.architectures)
def test_architectures_have_about_as_many_parameters(model):
    from stages.models import build

    document = read_yaml(ROOT / "params.yaml")
    counts = []
    for settings in SEARCH.architectures[model].values():
        changed = document | {model: document[model] | settings}
        section = parse_params(changed).models[model]
        counts.append(build(model, (28, 28, 1), 10, section).count_params())
    assert max(counts) <= 1.1 * counts[0]
    assert min(counts) >= 0.9 * counts[0]


@pytest.mark.parametrize("dataset", [p.stem[7:] for p in RECORDED.glob("search_*.json")])
def test_a_recorded_search_follows_from_its_own_accuracies(dataset, tmp_path, monkeypatch):
    """The sampler proposes the recorded trials again, and the rules choose the recorded recipes."""
    recorded = json.loads((RECORDED / f"search_{dataset}.json").read_text(encoding="utf-8"))
    text = (RECORDED / f"search_{dataset}.csv").read_text(encoding="utf-8")
    rows = {(r["model"], r["trial"], r["seed"]): r for r in csv.DictReader(io.StringIO(text))}
    numbers = {}

    def train(search, dataset, yes, wanted, done):  # noqa: ARG001
        found = []
        for number, model, choice, seed in wanted:
            row = rows[model, str(number), str(seed)]
            assert {key: row[key] for key in choice} == {k: str(v) for k, v in choice.items()}
            numbers[model, *choice.values()] = str(number)
            result = row["val_accuracy"] and {
                key: float(row[key]) for key in ("val_accuracy", "val_loss", "train_seconds")
            } | {"parameters": row["parameters"]}
            found.append(Trained(number, model, choice, seed, row["key"], result or None))
        return found

    def multiply_adds(trial):
        model, choice = trial
        return recorded[model]["finalists"][numbers[model, *choice.values()]]["multiply_adds"]

    monkeypatch.setattr(engine, "train_missing", train)
    monkeypatch.setattr(engine, "planned", lambda *words: words[2:4])  # model and choice
    monkeypatch.setattr(engine, "multiply_adds", multiply_adds)
    monkeypatch.setattr(engine.driver, "RESULTS", tmp_path)
    engine.find_recipes(SEARCH, dataset, yes=True)
    assert (tmp_path / f"search_{dataset}.csv").read_text(encoding="utf-8") == text
    again = json.loads((tmp_path / f"search_{dataset}.json").read_text(encoding="utf-8"))
    for model in SEARCH.architectures:  # fANOVA's last digits may depend on the processor
        shares = again[model].pop("importance")
        assert shares == pytest.approx(recorded[model].pop("importance"), abs=1e-6)
    assert again == recorded


# --- a small search -----------------------------------------------------------------------


def search(project: Project) -> str:
    return project.module("studies.engine.search", "digits", "--yes").stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny_document, environment, ray_turn) -> Project:  # noqa: ARG001
    if not has_ray():
        pytest.skip("Ray is not installed: studies/requirements.txt")
    made = Project(tmp_path_factory.mktemp("search") / "project", tiny_document, environment)
    made.path("studies/search.yaml").write_text(yaml.safe_dump(TINY_SEARCH), encoding="utf-8")
    made.printed = search(made)
    return made


@pytest.mark.extra
def test_a_search_gives_a_recipe_per_model(searched):
    found = json.loads(searched.read("studies/results/search_digits.json"))["lstm"]
    rows = list(csv.DictReader(io.StringIO(searched.read("studies/results/search_digits.csv"))))
    assert [(row["trial"], row["seed"]) for row in rows[:3]] == [("1", "1"), ("2", "1"), ("3", "1")]
    assert sorted((row["trial"], row["seed"]) for row in rows[3:]) == sorted(
        (number, seed) for number in found["finalists"] for seed in ("2", "3")
    )
    assert rows[0]["architecture"] == "last"
    assert float(rows[0]["learning_rate"]) == 0.01
    chosen = rows[found["chosen"] - 1]
    assert found["recipe"]["learning_rate"] == float(chosen["learning_rate"])
    assert sum(found["importance"].values()) == pytest.approx(1)
    trials = [json.loads(p.read_text()) for p in searched.path("studies/trials").glob("*.json")]
    assert len(trials) == len(rows) == 7
    assert all("accuracy" not in trial["result"] for trial in trials), "the test set stays closed"


@pytest.mark.slow
def test_an_interrupted_search_continues_to_the_same_results(searched, tmp_path):
    copy = searched.copy_to(tmp_path / "copy")
    results = [f"studies/results/search_digits.{kind}" for kind in ("csv", "json")]
    before = [searched.read(name) for name in results]
    rows = list(csv.DictReader(io.StringIO(before[0])))
    kept = {path: path.stat().st_mtime_ns for path in copy.path("studies/trials").glob("*.json")}
    for row in rows[2:]:  # as if it had been killed after its first batch
        path = copy.path(f"studies/trials/{row['key']}.json")
        path.unlink()
        del kept[path]
    printed = search(copy)
    again = list(csv.DictReader(io.StringIO(copy.read(results[0]))))
    timeless = [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows]
    assert [{k: v for k, v in row.items() if k != "train_seconds"} for row in again] == timeless
    assert "[1/1]" in printed, "only what is missing was trained"
    assert "[4/4]" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
