"""The README's figures are those of the committed run, and what it names exists."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks.bench import table
from benchmarks.pipeline import table as pipeline_table
from stages.expected import FLOORS, Floor, read_entries
from stages.params import ENSEMBLE
from stages.study.file import read_study
from stages.study.page import by, compared, overview, verdicts
from stages.study.results import costs
from stages.study.results import table as comparison_table
from stages.verdict import SIGNIFICANT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "studies/README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "studies/RECIPES.md").read_text(encoding="utf-8")


def committed(path: str) -> str:
    done = subprocess.run(
        ["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{path} is not committed")
    return done.stdout


def test_main_table_and_its_verdict_are_those_of_the_recorded_comparison():
    study = read_study(ROOT / "studies/comparison.yaml")
    cells = json.loads(committed("studies/results/comparison.json"))
    assert comparison_table(study, cells) in README
    assert costs(cells) in README
    assert [sentence for sentence in verdicts(cells) if f"- {sentence}\n" not in README] == []


def test_the_short_verdict_is_that_of_the_recorded_comparison():
    cells = json.loads(committed("studies/results/comparison.json"))
    behind: dict[tuple[str, str], list[float]] = {}  # the best, in points
    text = " ".join(README.split())
    for _, row in by(lambda cell: (cell["dataset"], cell["epochs"]), cells):
        best = max(row, key=lambda cell: cell["accuracy_mean"])
        for cell in row:
            if cell is not best:
                difference, _, p = compared(best, cell)
                alone = ("fashion_mnist", "hybrid", 8)
                lost = (cell["dataset"], cell["model"], cell["epochs"]) == alone
                assert (p < SIGNIFICANT) == (cell["model"] == "lstm" or lost)
                if lost:
                    assert best["model"] == "cnn"
                    assert f"where the CNN leads by {100 * difference:.2f} (" in text
                behind.setdefault((cell["dataset"], cell["model"]), []).append(100 * difference)
    reach = {
        data: f"{min(differences):.2f} to {max(differences):.2f}"
        for (data, model), differences in behind.items()
        if model == "lstm"
    }
    assert (
        f"the LSTM is behind the best at every number of epochs, by {reach['mnist']} points on "
        f"MNIST, by {reach['fashion_mnist']} on Fashion-MNIST"
    ) in text
    sizes = {(cell["dataset"], cell["model"], cell["parameters"]) for cell in cells}
    assert {size for size in sizes if size[1] != "lstm"} == {
        ("fashion_mnist", "cnn", 220_618), ("mnist", "cnn", 225_418),
        ("fashion_mnist", "hybrid", 323_530), ("mnist", "hybrid", 296_970),
    }  # fmt: skip
    assert "(CNN 220,618 and 225,418 parameters, hybrid 323,530 and 296,970)" in text
    late = {cell["epochs"]: cell for cell in cells
            if (cell["dataset"], cell["model"]) == ("fashion_mnist", "lstm")}  # fmt: skip
    assert compared(late[30], late[20])[2] < SIGNIFICANT


def test_the_picture_is_that_of_the_recorded_comparison():
    rows = [
        row | {"epochs": int(row["epochs"]), "accuracy": float(row["accuracy"])}
        for row in csv.DictReader(committed("studies/results/comparison.csv").split("\n"))
    ]
    cells = json.loads(committed("studies/results/comparison.json"))
    drawn = overview(read_study(ROOT / "studies/comparison.yaml"), cells, rows)
    kept = imread(ROOT / "studies/results/comparison.png")
    assert np.array_equal(imread(io.BytesIO(drawn)), kept)


@pytest.mark.parametrize("study", re.findall(r"holds this table to results/(\w+)\.json", STUDIES))
def test_tables_of_the_published_settings_are_the_recorded_studies(study):
    cells = json.loads(committed(f"studies/results/{study}.json"))
    assert comparison_table(read_study(ROOT / f"studies/{study}.yaml"), cells) in STUDIES


def test_result_table_is_the_committed_run():
    rows = {
        row["model"]: row for row in csv.DictReader(committed("metrics/results.csv").split("\n"))
    }
    shown = re.findall(
        r"^\| (\w+) \| ([\d,]*) \| ([\d.]+) % \| ([\d.]+) % \| (\d+) \| ([\d.]*) \|$", README, re.M
    )
    assert [line[0] for line in shown] == list(rows)
    for model, parameters, accuracy, macro_f1, errors, seconds in shown:
        row = rows[model]
        assert parameters.replace(",", "") == row["parameters"]
        assert accuracy == f"{float(row['test_accuracy']) * 100:.2f}"
        assert macro_f1 == f"{float(row['macro_f1']) * 100:.2f}"
        assert errors == row["errors"]
        assert seconds == (f"{float(row['seconds_per_epoch']):.1f}" if model != "ensemble" else "")


def test_the_committed_run_is_as_far_from_its_targets_as_the_readme_says():
    errors = {
        row["model"]: int(row["errors"])
        for row in csv.DictReader(committed("metrics/results.csv").split("\n"))
    }
    (cnn, cnn_target), (lstm, lstm_target), (hybrid, hybrid_target) = (
        (round(10_000 * (1 - floor.accuracy)) - errors[floor.model], f"{floor.accuracy:.2%}")
        for floor in read_entries(ROOT / FLOORS, Floor)
        if (floor.dataset, floor.epochs) == ("mnist", 10) and floor.model != ENSEMBLE
    )
    said = f"the CNN makes {cnn} errors fewer than its own allows ({cnn_target}), "
    said += f"the LSTM {lstm} ({lstm_target})"
    said = f"{said} and the hybrid {hybrid} ({hybrid_target})".replace("%", " %")
    assert said in " ".join(README.split())


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`?(?:stages|studies|tests|plots/readme)/[\w/]+\.\w+", README)))
)
def test_named_files_exist(path):
    assert (ROOT / path.strip("`")).exists() or committed(path.strip("`"))


def test_make_targets_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {a or b for a, b in re.findall(r"^make ([a-z]+)|`make ([a-z]+)", README, re.M)}
    assert named <= targets
    assert "run" in named


def test_speed_tables_are_the_recorded_benchmark():
    result = json.loads(committed("benchmarks/results.json"))
    shown = table(result)
    assert shown in README
    assert shown in (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert result["machine"] in README


def test_what_the_pipeline_adds_is_the_recorded_benchmark():
    result = json.loads(committed("benchmarks/pipeline.json"))
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert pipeline_table(result) in text
    assert f"`pipeline.json`, {result['machine']}, {result['rounds']} rounds" in text


def test_the_growth_is_the_recorded_one():
    found = json.loads(committed("benchmarks/growth.json"))
    (one, ten), (small, large) = (
        found[key].values() for key in ("images_per_second", "peak_memory_bytes")
    )
    low, high = found["ratio_range"]
    said = (
        f"{found['rounds']} rounds of alternating sides: with ten times the training set {ten:,} "
        f"images a second against {one:,} (ratio {found['ratio']:.2f}, {low:.2f} to {high:.2f}), "
        f"and {large / 1e6:,.0f} MB at the peak against {small / 1e6:,.0f} MB: "
        f"{(large - small) / 1e6:.0f} MB more for {found['added_bytes'] / 1e6:.0f} MB more images."
    )
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    assert said in " ".join(text.split())


def test_the_throughput_and_overhead_of_studies_are_the_recorded_ones():
    found = json.loads(committed("studies/measured/throughput.json"))

    def cell(numbers: list[float], form: str) -> str:
        return f"{median(numbers):{form}} ({min(numbers):{form}} to {max(numbers):{form}})"

    for name, entry in found.items():
        if name != "machine":
            one, packed = entry["trials_per_hour"].values()
            shown = " | ".join((cell(one, ".1f"), cell(packed, ".1f")))
            row = f"| {name}, {entry['epochs']} epochs | {shown} |"
            assert f"{row} {cell(entry['ratio']['each'], '.2f')} |\n" in STUDIES
    found = json.loads(committed("studies/measured/overhead.json"))
    memory = found["driver_resident_bytes"]
    for number in (
        f"{found['code_bytes'] / 1e6:.2f} MB |",
        f"{found['array_bytes'] / 1e6:.1f} MB sent",
        f"{found['result_bytes'] / 1e3:.1f} kB |",
        f"{found['seconds_a_trial_and_core']:.1f} s of a core |",
        f"| {1000 * found['plan_cpu_seconds_a_trial']:.1f} ms |",
        f"| {1000 * found['driver_cpu_seconds_a_trial']:.1f} ms |",
        f"| {memory['start'] / 1e6:.0f} MB, {memory['half'] / 1e6:.0f} MB with the arrays in",
        f"{found['driver_bytes_a_trial'] / 1e3:.0f} kB a result",
    ):
        assert number in STUDIES


def test_the_time_to_accuracy_is_the_recorded_one():
    rows = json.loads(committed("benchmarks/time_to_accuracy.json"))["rows"]
    shown = [
        f"| {row['model']} | {row['precision']} | {row['our_epochs']} | "
        f"{median(row['plain_seconds']):.1f} | {median(row['our_seconds']):.1f} | "
        f"{row['share']:.2f} ({row['share_range'][0]:.2f} to {row['share_range'][1]:.2f}) |\n"
        for row in rows
    ]
    assert "".join(shown) in (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")


def test_the_effort_of_the_searches_is_that_of_their_rows():
    """A trial that two searches share is one, also where its code has another digest by now."""
    trials = {
        (row["model"], row["dataset"], row["epochs"], row["seed"], row["val_loss"])
        for path in (ROOT / "studies/results").glob("search_*.csv")
        for row in csv.DictReader(path.read_text(encoding="utf-8").split("\n"))
    }
    rows = [trial[:3] for trial in trials]
    cnn, lstm, hybrid = (
        [row[0] for row in rows].count(model) for model in ("cnn", "lstm", "hybrid")
    )
    of_cnn, of_hybrid = (rows.count((model, "fashion_mnist", "8")) for model in ("cnn", "hybrid"))
    short = sum(rows.count(("cnn", "mnist", epochs)) for epochs in ("2", "3"))
    assert f"{short} of the CNN's are for two and three epochs" in RECIPES
    assert f"({of_cnn} trials searched its recipe there, {of_hybrid} the hybrid's)" in README
    said = f"{cnn} trials for the CNN, {lstm} for the LSTM, {hybrid} for the hybrid"
    assert said in " ".join(README.split())
    assert said in " ".join(RECIPES.split())


@pytest.mark.parametrize("study", re.findall(r"studies/results/(search_\w+)\.json", RECIPES))
def test_recipes_tables_are_the_recorded_searches(study):
    path = f"studies/results/{study}.json"
    cells = json.loads(committed(path))
    rows = [
        f"| {cell['variant']} | {cell['n']} | {cell['val_accuracy_mean'] * 100:.2f} ± "
        f"{cell['val_accuracy_std'] * 100:.2f} % | {cell['val_loss_mean']:.4f} |"
        for cell in sorted(cells, key=lambda cell: -cell["val_accuracy_mean"])
    ]
    assert "\n".join(rows) in RECIPES
    base = read_study(ROOT / f"studies/{study}.yaml").base
    own = {key.split(".")[1]: value for key, value in base.items()}
    said = f"Base: rate {own['learning_rate']:g}, dropout {own['dropout']:g}, shift {own['shift']}"
    said += ", flip" if own.get("flip") else ""
    said += "".join(f", {key} {own[key]:g}" for key in ("rotation", "zoom") if own.get(key))
    for key, name in (("label_smoothing", "smoothing"), ("weight_decay", "weight decay")):
        said += f", {name} {own[key]:g}" if own.get(key) else ""
    said += ", bfloat16." if own.get("precision") == "mixed_bfloat16" else "."
    assert f"{said}\n\n<!-- tests/test_readme.py holds this table to {path} -->" in RECIPES
    shared = {"batch_size": 256, "optimizer": "adam", "schedule": "one_cycle", "warmup": 0.25,
              "clip_norm": 0.0, "kernel_size": 3}  # fmt: skip
    assert {key: own.get(key, value) for key, value in shared.items()} == shared
