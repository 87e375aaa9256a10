"""`make compare`: all experiments and the work tree as one table."""

from __future__ import annotations

import re

import pytest
from conftest import IDENTITY, Project

from tools.compare import WIDTH, as_table


def compare(project: Project) -> list[str]:
    """Return the table's lines. None is too wide for a terminal of 120 columns."""
    lines = project.module("tools.compare").stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH == 120
    return lines


def test_without_experiments_it_shows_the_work_tree_and_the_commit(pipeline):
    models, columns, *rows = compare(pipeline)
    assert models.split() == ["cnn", "lstm", "hybrid", "ensemble", "training"]
    assert columns.split() == ["experiment", "changed", *["val", "test"] * 3, "test", "(s)"]
    assert [re.split(r"  +", row.strip())[0] for row in rows] == ["work tree", "HEAD"]


@pytest.mark.slow
def test_experiments_show_what_they_changed_and_the_best_values(clone):
    clone.dvc("exp", "run", "-n", "wide", "-S", "lstm.units=16", **IDENTITY)
    clone.run("git", "checkout", "--quiet", ".")
    clone.dvc("exp", "run", "--queue", "-n", "later", "-S", "seed=7", **IDENTITY)
    rows = {row.split()[0]: row for row in compare(clone)[2:]}
    assert " lstm.units=16 " in rows["wide"]
    assert " seed=7 " in rows["later"]
    assert "later (queued)" in rows["later"]
    assert not re.search(r"\d\.\d", rows["later"])
    assert "*" in "".join(rows.values())
    clone.run("git", "checkout", "--quiet", ".")
    clone.run("git", "commit", "--quiet", "--allow-empty", "-m", "another commit", **IDENTITY)
    names = [row.split()[0] for row in compare(clone)[2:]]
    assert names.index("HEAD") < names.index("wide"), "experiments of earlier commits stay"


@pytest.mark.extra
def test_a_damaged_table_of_results_gives_no_seconds(clone):
    for text in ("<<<<<<< ours\nmodel,train_seconds\n", "model,train_seconds\ncnn\n", "model\n\n"):
        clone.path("metrics/results.csv").write_text(text, encoding="utf-8")
        work_tree = compare(clone)[2]
        assert re.search(r"\d\.\d", work_tree), "accuracies are in other files"


@pytest.mark.extra
def test_a_failed_experiment_is_listed(clone):
    clone.dvc("exp", "run", "--queue", "-n", "broken", "-S", "cnn.filters=[4,4,4,4,4]", **IDENTITY)
    clone.run("sh", "-c", "dvc queue start > .dvc/tmp/queue.log 2>&1", **IDENTITY)
    clone.dvc("queue", "logs", "--follow", "broken", status=None)
    for _ in range(60):
        if "Failed" in clone.dvc("queue", "status"):
            break
    (row,) = (row for row in compare(clone) if "broken" in row)
    assert "broken (failed)" in row


def test_fifty_experiments_with_long_changes_fit():
    rows = [
        {"name": "HEAD", "state": "Success", "params": {"a": 0}, "metrics": {}, "seconds": None}
    ]
    for i in range(50):
        parts = [(m, part) for m in ("cnn", "lstm", "hybrid") for part in ("val", "test")]
        parts.append(("ensemble", "test"))
        metrics = {f"{model}.{part}.accuracy": 0.5 + i / 100 for model, part in parts}
        params = {f"section.key_number_{k}": i for k in range(9)}
        row = {
            "name": f"moody-{'long' * 15}-name{i}",
            "state": "Success",
            "params": params,
            "metrics": metrics,
        }
        rows.append(row | {"seconds": float(100 - i)})
    lines = as_table(rows).splitlines()
    assert len(lines) == 53
    assert max(map(len, lines)) <= WIDTH
    best = lines[-1]
    assert best.count("99.00*") == 7
    assert best.rstrip().endswith("51*")
    assert "section.key_number_0=49" in best
    assert "…" in best
