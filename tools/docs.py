"""Update the generated blocks of the documentation from the recorded results.

    python -m tools.docs            rewrites the text between `BEGIN name` and `END name` comments
    python -m tools.docs --check    changes nothing, and fails if a block is stale

Sources: `metrics/results.csv`, `studies/*.yaml`, `studies/results/` and `benchmarks/*.json`.
"""

from __future__ import annotations

import argparse
import functools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from stages.common.cli import StageError, run
from stages.common.files import read_csv, read_json, write_text
from stages.common.params import read_yaml
from stages.evaluation import SIGNIFICANT
from stages.reporting.sentences import in_percent, joined, p_text, percent, points
from stages.reporting.targets import missed_target
from studies.engine.summary import Cell, compared

PAGES = ("README.md", "docs/*.md", "studies/*.md", "benchmarks/*.md")
BLOCK = re.compile(r"(<!-- BEGIN (\S+) -->\n)(.*?)(<!-- END \2 -->)", re.DOTALL)
MODELS = {"cnn": "CNN", "lstm": "LSTM", "hybrid": "CNN+LSTM"}
NAMES = MODELS | {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "ensemble": "ensemble"}
REPORTED_STUDIES = ("mnist_cnn_lstm", "mnist_cnn_vs_lstm", "mnist_row_lstm",
                    "fashion_cnn_vs_lstm", "conv2d_lstm")  # fmt: skip
AROUND = {  # figures of benchmarks/pipeline.json: label, factor, unit
    "added_seconds": ("`dvc repro` from nothing, without the seconds of training", 1, "s"),
    "nothing_to_do_seconds": ("`dvc repro` with nothing to do", 1, "s"),
    "evaluate_seconds": ("`evaluate` after its imports: three models, 10,000 images", 1, "s"),
    "report_seconds": ("`report` with its imports", 1, "s"),
    "peak_memory_bytes": ("peak memory of a training stage", 1e-9, "GB"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Update the generated blocks of the docs.")
    parser.add_argument("--check", action="store_true", help="fail if a block is stale")
    check = parser.parse_args().check
    stale = []
    for path in (path for pattern in PAGES for path in sorted(Path().glob(pattern))):
        text = path.read_text(encoding="utf-8")
        stale += [
            f"{path} ({name})" for _, name, old, _ in BLOCK.findall(text) if old != made(name)
        ]
        if not check:
            write_text(path, BLOCK.sub(lambda each: each[1] + made(each[2]) + each[4], text))
    if check and stale:
        raise StageError(f"stale: {', '.join(stale)}; run `make docs`, then commit the changes")
    print(f"updated: {', '.join(stale)}" if stale else "all generated blocks are up to date")


def made(name: str) -> str:
    """Return the text of the block `name`. An unknown name raises StageError."""
    if name not in BLOCKS:
        raise StageError(f"unknown block {name!r}; known: {', '.join(BLOCKS)}")
    return BLOCKS[name]()


# --- text ---------------------------------------------------------------------------------


def table(header: str, rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table. A heading that starts with `>` aligns its column to the right."""
    heads = header.split("|")
    rule = ["--:" if head.startswith(">") else "---" for head in heads]
    lines = [[head.removeprefix(">") for head in heads], rule, *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def wrapped(sentences: Iterable[str]) -> str:
    """Return sentences as a Markdown list with short lines."""
    fill = functools.partial(textwrap.fill, width=100, break_on_hyphens=False,
                             initial_indent="- ", subsequent_indent="  ")  # fmt: skip
    return "".join(f"{fill(sentence)}\n" for sentence in sentences)


def mean(cell: Cell) -> str:
    return f"{in_percent(cell['accuracy_mean'])} ± {in_percent(cell['accuracy_std'])}"


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Return the median and the range of some values."""
    values = list(values)
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


# --- the comparison -----------------------------------------------------------------------


@functools.cache
def comparison() -> dict[tuple[str, int], dict[str, Cell]]:
    """Return the configurations of the main study: by dataset and epochs, then by model."""
    rows: dict[tuple[str, int], dict[str, Cell]] = {}
    for cell in read_json(Path("studies/results/comparison.json")):
        rows.setdefault((cell["dataset"], cell["epochs"]), {})[cell["model"]] = cell
    return rows


def paired(one: Cell, other: Cell) -> tuple[float, Any, float]:
    """Return the paired difference of two cells, its interval and its corrected p-value."""
    found = compared(one, other)
    if found is None:
        raise StageError("studies/results/comparison.json lacks a comparison; run `make study`")
    return found


def results() -> str:
    """Return the mean accuracies: one row per dataset and epochs, one column per model.

    Two rows have the number of parameters and the seconds per epoch of the committed run.
    """
    run_of = {row["model"]: row for row in read_csv(Path("metrics/results.csv"))}
    rows = [
        ["parameters", "", *(f"{int(run_of[model]['parameters']):,}" for model in MODELS)],
        ["seconds per epoch", "",
         *(f"{float(run_of[model]['seconds_per_epoch']):.1f}" for model in MODELS)],
    ]  # fmt: skip
    rows += [[NAMES[data], epochs, *map(mean, row.values())]
             for (data, epochs), row in comparison().items()]  # fmt: skip
    return table("dataset|>epochs|>CNN|>LSTM|>CNN+LSTM", rows)


def results_in_detail() -> str:
    """Return `results` with missed targets, seconds of training, and reported figures."""
    rows = []
    for (data, epochs), row in comparison().items():
        shown = []
        for model, cell in row.items():
            target = missed_target(data, model, epochs, cell["accuracy_mean"])
            shown.append(mean(cell) + (f" (target {in_percent(target)})" if target else ""))
        seconds = " / ".join(f"{cell['train_seconds_median']:.0f}" for cell in row.values())
        rows.append([NAMES[data], epochs, *shown, seconds, reported(None, data, epochs)])
    return table("dataset|>epochs|>CNN|>LSTM|>CNN+LSTM|>seconds|reported", rows)


def reported(study: str | None, data: str, epochs: int, model: str = "") -> str:
    """Return what others reported, from a study file or else from studies/published.yaml."""
    everything = read_yaml(Path("studies/published.yaml"))
    listed = read_yaml(Path(f"studies/{study}.yaml")).get("published") if study else None
    return ", ".join(
        f"{NAMES[entry['model']]} {in_percent(entry['accuracy'])}{'' if entry['epochs'] else '*'}"
        for entry in (everything if listed is None else listed)
        if entry["dataset"] == data and entry["epochs"] in (None, epochs)
        if model in ("", entry["model"])
    )


def differences() -> str:
    """Return the paired differences between models. Significant ones are bold."""
    rows = []
    for (data, epochs), row in comparison().items():
        cnn, lstm, hybrid = row.values()
        shown = []
        for pair in ((hybrid, cnn), (cnn, lstm), (hybrid, lstm)):
            value, (low, high), p = paired(*pair)
            bold = "**" if p < SIGNIFICANT else ""
            shown.append(
                f"{bold}{points(value)}{bold} ({points(low)} to {points(high)}), {p_text(p)}"
            )
        rows.append([NAMES[data], epochs, *shown])
    return table("dataset|>epochs|CNN+LSTM − CNN|CNN − LSTM|CNN+LSTM − LSTM", rows)


def findings() -> str:
    """Return the conclusions of the comparison as sentences."""
    rows, apart, gaps, significant, gains = comparison(), [], {}, 0, []
    for (data, epochs), row in rows.items():
        value, _, p = paired(row["cnn"], row["hybrid"])
        if p < SIGNIFICANT:
            apart.append(f"{NAMES[data]} after {epochs} epochs: CNN {points(value)} points")
        best = max(row.values(), key=lambda cell: cell["accuracy_mean"])
        if best["model"] != "lstm":
            value, _, p = paired(best, row["lstm"])
            gaps.setdefault(data, []).append(100 * value)
            significant += p < SIGNIFICANT
    for data in gaps:
        values = [points(paired(rows[data, 30][model], rows[data, 10][model])[0])
                  for model in MODELS]  # fmt: skip
        gains.append(f"by {' / '.join(values)} points on {NAMES[data]}")
    behind = [f"{min(each):.2f} to {max(each):.2f} points on {NAMES[data]}"
              for data, each in gaps.items()]  # fmt: skip
    theirs, ours = (cell for cell in read_json(Path("studies/results/fashion_cnn_vs_lstm.json"))
                    if cell["model"] == "cnn")  # fmt: skip
    times = read_json(Path("benchmarks/results.json"))["rows"]
    keras, torch = ([row[f"ratio_{side}"] for row in times] for side in ("keras", "torch"))
    sentences = [
        f"CNN and CNN+LSTM differ significantly in {len(apart)} of {len(rows)} rows"
        f"{f' ({joined(apart)})' if apart else ''}.",
        f"The LSTM is behind the best model by {joined(behind)}; the gap is significant in "
        f"{significant} of {len(rows)} rows.",
        f"30 instead of 10 epochs change the accuracy of {' / '.join(MODELS.values())} "
        f"{joined(gains)}.",
        f"Layers and recipe matter as well: on Fashion-MNIST after {ours['epochs']} epochs, a "
        f"reported CNN setting ({theirs['parameters']:,} parameters) reaches "
        f"{percent(theirs['accuracy_mean'])}, our CNN ({ours['parameters']:,}) "
        f"{percent(ours['accuracy_mean'])} (mean of {ours['n']} seeds).",
        f"On two cores, an epoch takes {min(keras):.2f} to {max(keras):.2f} times as long in plain "
        f"Keras and {min(torch):.2f} to {max(torch):.2f} times as long in PyTorch as here.",
    ]
    return wrapped(sentences)


def recurrent() -> str:
    """Return what the studies of sequences and of recurrent layers found, as sentences."""
    cnn, channels, lstm, hybrid, convlstm = (
        f"{mean(cell)} %" for cell in read_json(Path("studies/results/digit_sequences.json"))
    )
    gaps = [100 * paired(row["cnn"], row["lstm"])[0] for row in comparison().values()]
    layers = {
        (cell["dataset"], cell["variant"]): cell
        for cell in read_json(Path("studies/results/recurrent_layers.json"))
    }

    def change(variant: str) -> str:
        """Return the changes against an LSTM that reads rows. Significant ones are bold."""
        texts = []
        for data in ("mnist", "fashion_mnist"):
            value, _, p = paired(layers[data, variant], layers[data, "LSTM, rows"])
            bold = "**" if p < SIGNIFICANT else ""
            texts.append(f"{bold}{points(value)}{bold}")
        return " / ".join(texts)

    return wrapped([
        f"When the order of frames decides: on digit sequences, the LSTM reaches {lstm}, CNN+LSTM "
        f"{hybrid}, a convolutional LSTM {convlstm} (3 seeds).",
        f"A CNN cannot replace it there: the mean over frames ignores their order (at most 20 % "
        f"are possible) and reaches {cnn}; frames as channels reach {channels}.",
        f"Not for single images: there, the LSTM is {min(gaps):.2f} to {max(gaps):.2f} points "
        "behind the CNN.",
        "Another cell in the LSTM's recipe changes the accuracy on MNIST / Fashion-MNIST by "
        f"{change('GRU, rows')} points (GRU) and {change('simple RNN, rows')} points (simple RNN).",
        f"So does another reading order: {change('LSTM, columns')} points for columns and "
        f"{change('LSTM, both')} points for rows and columns in two branches (bold: significant).",
    ])  # fmt: skip


# --- reported settings --------------------------------------------------------------------


def reported_settings() -> str:
    """Return what reported settings and ours reach: one row per study, model and epochs."""
    rows: dict[tuple, list[str]] = {}
    for study in REPORTED_STUDIES:
        for cell in read_json(Path(f"studies/results/{study}.json")):
            place = (f"`{study}`", cell["model"], cell["epochs"])
            entries = reported(study, cell["dataset"], cell["epochs"], cell["model"])
            row = rows.setdefault(place, [entries.replace(f"{NAMES[cell['model']]} ", "")])
            row.append(mean(cell) + (" (plain)" if cell["variant"] == "plain recipe" else ""))
    lines = [[study, NAMES[model], epochs, *row] for (study, model, epochs), row in rows.items()]
    return table("study|model|>epochs|>reported|>reported recipe here|>our recipe", lines)


# --- benchmarks ---------------------------------------------------------------------------


def epoch_times() -> str:
    found = read_json(Path("benchmarks/results.json"))
    rows = [
        [NAMES[row["model"]], row["precision"],
         *(f"{row[f'{side}_seconds']:.1f}" for side in ("ours", "keras", "torch")),
         *("{:.2f} ({:.2f} to {:.2f})".format(row[f"ratio_{side}"], *row[f"ratio_{side}_range"])
           for side in ("keras", "torch")),
         f"{row['share_of_matmul']:.2f}"]
        for row in found["rows"]
    ]  # fmt: skip
    heads = "model|precision|>ours, s|>Keras, s|>PyTorch, s|>Keras / ours|>PyTorch / ours"
    peak = "{:.0f} ({:.0f} to {:.0f})".format(found["matmul_gflops"], *found["matmul_gflops_range"])
    blas = f" with OpenBLAS for {found['matmul_blas']}" if "matmul_blas" in found else ""
    text = f"{machine(found)} Peak: {peak} GFLOP/s{blas}.\n\n"
    return text + table(f"{heads}|>fraction of peak", rows)


def machine(found: Mapping[str, Any]) -> str:
    return f"{found['machine']}; {found['rounds']} rounds."


def around() -> str:
    found = read_json(Path("benchmarks/pipeline.json"))
    sentences = []
    for name, (label, factor, unit) in AROUND.items():
        values = [factor * value for value in found["figures"][name]["rounds"]]
        sentences.append(f"{label}: {spread(values)} {unit}")
    return f"{machine(found)}\n\n" + wrapped(sentences)


def time_to_accuracy() -> str:
    found = read_json(Path("benchmarks/time_to_accuracy.json"))
    rows = [
        [NAMES[row["model"]], row["precision"], in_percent(row["target"][0]), row["our_epochs"],
         spread(row["plain_seconds"], ".0f"), spread(row["our_seconds"], ".0f"),
         "{:.2f} ({:.2f} to {:.2f})".format(row["share"], *row["share_range"])]
        for row in found["rows"]
    ]  # fmt: skip
    heads = "model|precision|>accuracy, %|>our epochs|>reported recipe, s|>ours, s"
    return f"{machine(found)}\n\n" + table(f"{heads}|>ours / reported", rows)


def gpu() -> str:
    found = read_json(Path("benchmarks/gpu.json"))
    rows = [
        [NAMES[row["model"]], spread(row["ours_seconds"]), spread(row["torch_seconds"]),
         f"{row['compile_seconds']:.0f}", in_percent(median(row["val_accuracy"]))]
        for row in found["rows"]
    ]  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    text = f"{found['device']}; {found['runs']} runs; {versions}.\n\n"
    heads = "model|>ours, s|>PyTorch, s|>compilation, s|>validation accuracy, %"
    return text + table(heads, rows)


BLOCKS = {
    "results": results,
    "recurrent": recurrent,
    "findings": findings,
    "comparison": results_in_detail,
    "differences": differences,
    "reported-settings": reported_settings,
    "epoch-times": epoch_times,
    "around": around,
    "time-to-accuracy": time_to_accuracy,
    "gpu": gpu,
}


if __name__ == "__main__":
    run(main)
