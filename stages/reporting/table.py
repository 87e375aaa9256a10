"""The result table: one row per model, from the metrics files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.files import read_json
from stages.common.params import ENSEMBLE
from stages.reporting.sentences import in_percent
from stages.reporting.targets import Published

RESULTS = Path("metrics/results.csv")
REPORT = Path("plots/report.html")
TIMING = Path("data/timing")
SUMMED = ("parameters", "train_seconds", "seconds_per_epoch")  # the ensemble's costs


def collect(details: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per model, and one for the ensemble, from the metrics files.

    Accuracies and F1 are fractions, losses are in nats, times in seconds. The ensemble's costs are
    the sums of its models' costs. Metrics that it does not have are "".

    Parameters
    ----------
    details
        For each model ``accuracy_interval`` (of the test accuracy: low and high) and ``errors``.
    """
    rows: list[dict[str, Any]] = []
    for name, figures in read_json(Path("metrics/test.json")).items():
        cost = sums(rows) if name == ENSEMBLE else costs(name)
        val = {"accuracy": "", "loss": ""}
        if name != ENSEMBLE:
            val = read_json(Path(f"metrics/{name}.json"))[name]["val"]
        tested, more = figures["test"], details[name]
        rows.append({
            "model": name,
            "parameters": cost.pop("parameters"),
            "epochs": cost.pop("epochs"),
            "train_accuracy": cost.pop("train_accuracy"),
            "val_accuracy": val["accuracy"],
            "val_loss": val["loss"],
            "test_accuracy": tested["accuracy"],
            "test_low": more["accuracy_interval"][0],
            "test_high": more["accuracy_interval"][1],
            "test_loss": tested["loss"],
            "balanced_accuracy": tested["balanced_accuracy"],
            "macro_f1": tested["macro_f1"],
            "errors": more["errors"],
            **cost,
        })  # fmt: skip
    return rows


def costs(name: str) -> dict[str, Any]:
    """Return the cost of a model's training, and where it ran, as columns of the table."""
    timing = read_json(TIMING / f"{name}.json")
    return {
        "parameters": timing["parameters"],
        "epochs": timing["epochs"],
        "train_accuracy": timing["train_accuracy"],
        "train_seconds": timing["train_seconds"],
        "seconds_per_epoch": timing["seconds_per_epoch"],
        "images_per_second": timing["examples_per_second"],
        "threads": threads_text(timing["threads"]),
        **timing["versions"],
        "probe": timing["probe"],
        "processor": timing["processor"],
    }


def threads_text(threads: Mapping[str, int]) -> str:
    """Return a thread setting as `1×2/2`: operations at once × threads of each / batch parts."""
    return f"{threads['inter_op']}×{threads['intra_op']}/{threads['batch_parts']}"


def sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ensemble's costs: the sums of its models' costs."""
    epochs = {row["epochs"] for row in rows}
    row: dict[str, Any] = dict.fromkeys(costs(rows[0]["model"]), "")
    row |= {column: round(sum(model[column] for model in rows), 3) for column in SUMMED}
    return row | {"epochs": epochs.pop() if len(epochs) == 1 else ""}


def summary_table(rows: Sequence[Mapping[str, Any]], reported: Sequence[Published]) -> str:
    """Return the columns that people compare first, and results of others, as Markdown."""
    lines = []
    for row in rows:
        value, low, high = (in_percent(row[f"test_{key}"]) for key in ("accuracy", "low", "high"))
        lines.append([
            row["model"],
            f"{row['parameters']:,}",
            str(row["epochs"]),
            "" if row["val_accuracy"] == "" else in_percent(row["val_accuracy"]),
            f"{value} ({low}–{high})",
            f"{row['errors']:,}",
            f"{row['test_loss']:.4f}",
            f"{row['seconds_per_epoch']:.1f}",
        ])  # fmt: skip
    lines += [
        [f"*{entry.title}*", "", str(entry.epochs or "?"), "", in_percent(entry.accuracy), "",
         "" if entry.loss is None else f"{entry.loss:.4f}", ""]
        for entry in reported
    ]  # fmt: skip
    heads = ["model", "parameters", "epochs", "val (%)", "test (%), 95 % interval", "errors",
             "test loss", "epoch (s)"]  # fmt: skip
    return markdown([heads, *lines], [False] + [True] * 7)


def markdown(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Return rows of text as a Markdown table whose columns line up in a terminal, too.

    Parameters
    ----------
    rows
        The first one is the heading. Texts must not contain `|`.
    numeric
        Which columns are aligned to the right.
    """
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        f"{'-' * (width - right)}{':' * right}"
        for width, right in zip(widths, numeric, strict=True)
    ]
    lines = [
        [text.rjust(width) if right else text.ljust(width)
         for text, width, right in zip(row, widths, numeric, strict=True)]
        for row in rows
    ]  # fmt: skip
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])
