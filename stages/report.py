"""Stage `report`: one page that a person opens when a run has ended.

    python -m stages.report

Reads metrics, plot CSVs, predictions and a few test images, never TensorFlow. Writes
`plots/report.html` (the page), `plots/report.md` (its short form for a pull request),
`plots/figures/` (PNGs), `plots/readme/` (two small ones that git keeps), and
`metrics/results.csv`.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages import figures
from stages.expected import missed, published
from stages.files import read_csv, read_json, run, write_bytes, write_csv, write_text
from stages.params import ENSEMBLE, load_params
from stages.prepared import read_array, read_manifest, read_split
from stages.results import REPORT, RESULTS, collect
from stages.verdict import p_text, verdict

TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN = Path("plots/report.md")
FIRST_SHOWN, SHOWN = 4, 4  # test images that every report shows: four from index 4
MISTAKES = 4  # a model's most confident ones
BARS = 10  # classes in the chart of one image's probabilities
REACHED = 0.99  # of the last epoch's validation accuracy
LEAST = ("train_loss", "val_loss", "test_loss", "train_seconds", "seconds_per_epoch", "errors",
         "parameters")  # fmt: skip
MOST = ("train_accuracy", "val_accuracy", "test_accuracy", "images_per_second")


def main() -> None:
    params = load_params()
    rows = collect()
    manifest = read_manifest()
    names = [row["model"] for row in rows]
    x_test, y_test = read_split("test")
    predictions = {name: read_array(Path(f"data/predictions/{name}.npy")) for name in names}
    evaluation = read_json(Path("metrics/evaluation.json"))
    details = read_json(Path("data/predictions/details.json"))
    models = [name for name in names if name != ENSEMBLE]
    histories = {name: read_csv(Path(f"plots/history/{name}.csv")) for name in models}
    scores = {name: read_csv(Path(f"plots/per_class/{name}.csv")) for name in names}
    facts = {
        "params": params,
        "params_text": yaml.safe_dump(params.model_dump(), sort_keys=False),
        "command": command(params.model_dump()),
        "manifest": manifest,
        "rows": rows,
        "best": best(rows),
        "published": published(manifest["dataset"], [row["epochs"] for row in rows]),
        "missed": missed(manifest["dataset"], rows),
        "verdict": verdict(evaluation, details["comparisons"], len(y_test)),
        "evaluation": evaluation,
        "details": details["models"],
        "comparisons": details["comparisons"],
        "learning": {name: learning(history) for name, history in histories.items()},
        "classes": class_ranking(scores, models, manifest["class_names"]),
        "timing": {name: read_json(Path(f"metrics/timing/{name}.json")) for name in models},
        "inference": read_json(Path("metrics/timing/inference.json"))["seconds_per_image"],
        "colours": {name: figures.look(name, names)["color"] for name in names},
        "figures": draw(rows, details["models"], histories, scores, predictions, y_test, manifest),
        "examples": [
            example(i, x_test, y_test, predictions, manifest["class_names"])
            for i in range(FIRST_SHOWN, min(FIRST_SHOWN + SHOWN, len(y_test)))
        ],
        "mistakes": {
            name: [
                example(i, x_test, y_test, {name: predictions[name]}, manifest["class_names"])
                for i in confident_mistakes(predictions[name], y_test)
            ]
            for name in names
        },
    }
    write_csv(RESULTS, rows)
    write_text(REPORT, render("report.html.jinja", facts))
    write_text(MARKDOWN, render("report.md.jinja", facts))
    for text in facts["missed"]:
        print(f"!!! BELOW THE FLOOR  {text}")
    print(f"wrote {REPORT}, {MARKDOWN} and {RESULTS}")


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Fill in a template; everything that is not a figure of ours is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["p_text"] = p_text
    return environment.get_template(template).render(facts)


def command(params: Mapping[str, Any]) -> str:
    """Return the `dvc exp run` line that sets every parameter of this run."""
    return " ".join(
        ["dvc exp run", *(f"-S {shlex.quote(setting)}" for setting in settings(params, ""))]
    )


def settings(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={as_override(value)}"


def as_override(value: Any) -> str:
    """Return a value as `-S` takes it: by Hydra's grammar, where names may need quotes.

    A backslash is itself there, except before a quote.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9_./-]+", value):
        escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
        return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'
    return str(value).replace(" ", "")


def best(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which single models lead each column; several share a tie."""
    models = [row for row in rows if row["model"] != ENSEMBLE]
    leaders = {}
    for column in (*LEAST, *MOST):
        value = (min if column in LEAST else max)(row[column] for row in models)
        leaders[column] = [row["model"] for row in models if row[column] == value]
    return leaders


def learning(history: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the last epoch's validation accuracy, and the first epoch at `REACHED` of it."""
    values = [float(row["val_accuracy"]) for row in history]
    first = next(i for i, value in enumerate(values) if value >= REACHED * values[-1])
    return {"epoch": int(history[first]["epoch"]), "final": values[-1], "epochs": len(values)}


def class_ranking(
    scores: Mapping[str, Sequence[Mapping[str, str]]],
    models: Sequence[str],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the classes that the test set has, hardest first, with each model's accuracy."""
    ranking = [
        {
            "name": class_name,
            "images": int(scores[models[0]][i]["support"]),
            "recall": {name: float(rows[i]["recall"]) for name, rows in scores.items()},
            "mean": float(np.mean([float(scores[name][i]["recall"]) for name in models])),
        }
        for i, class_name in enumerate(class_names)
    ]
    return sorted((row for row in ranking if row["images"]), key=lambda row: row["mean"])


def confident_mistakes(probabilities: np.ndarray, y_true: np.ndarray) -> list[int]:
    """Return the images that a model was surest of and wrong about, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y_true)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:MISTAKES].tolist()


def example(
    i: int,
    x: np.ndarray,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return one test image as a picture, with the probabilities that each model gives it."""
    true, charts = int(y[i]), {}
    for name, probabilities in predictions.items():
        row, guess = probabilities[i], int(probabilities[i].argmax())
        likely = set(np.argsort(-row, kind="stable")[:BARS].tolist())
        likely |= {true} if true not in likely else set()
        charts[name] = [
            {
                "name": class_names[k],
                "share": float(row[k]),
                "kind": "true" if k == true else "wrong" if k == guess else "rest",
            }
            for k in sorted(likely)
        ]
    return {"index": i, "actual": class_names[true], "picture": picture(x[i]), "charts": charts}


def picture(pixels: np.ndarray) -> str:
    """Return an image, uint8 (height, width, 1 or 3), as a base64 PNG."""
    buffer = io.BytesIO()
    shown = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    figures.plt.imsave(buffer, shown, cmap="gray", vmin=0, vmax=255, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def draw(rows, details, histories, scores, predictions, y_test, manifest) -> dict[str, Markup]:
    """Draw every figure, save the PNGs, and return the SVGs for the page."""
    class_names = manifest["class_names"]
    intervals = {name: detail["accuracy_interval"] for name, detail in details.items()}
    bins = {name: read_csv(Path(f"plots/calibration/{name}.csv")) for name in predictions}
    recalls = {name: [float(row["recall"]) for row in table] for name, table in scores.items()}
    drawn = {}
    with figures.styled():
        todo = {
            "learning_curves": (lambda: figures.learning_curves(histories),
                                "Learning curves: accuracy and loss against the epoch"),
            "per_class": (lambda: figures.per_class(recalls, class_names),
                          "Classes: accuracy of each model within each class"),
            "calibration": (lambda: figures.reliability(bins),
                            "Calibration: accuracy against confidence"),
            "cost": (lambda: figures.cost(rows, intervals),
                     "Cost: test accuracy against seconds of training"),
        }  # fmt: skip
        for name, predicted in predictions.items():
            matrix = np.zeros((len(class_names),) * 2, dtype=int)
            np.add.at(matrix, (y_test, predicted.argmax(axis=1)), 1)
            todo[f"confusion_{name}"] = (
                lambda matrix=matrix: figures.confusion(matrix, class_names),
                f"Confusion {name}: images of each actual class by the class predicted",
            )
        for key, (make, title) in todo.items():
            figure = make()
            drawn[key] = Markup(figures.as_svg(figure, title))  # noqa: S704  escaped in as_svg
            write_bytes(Path(f"plots/figures/{key}.png"), figures.as_png(figure))
            if key in ("learning_curves", "per_class"):  # nothing in them depends on time
                small = figures.as_png(figure, figures.SMALL_DPI)
                write_bytes(Path(f"plots/readme/{key}.png"), small)
            figures.plt.close(figure)
    return drawn


if __name__ == "__main__":
    run(main)
