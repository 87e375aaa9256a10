"""Draw a digit in the browser and see what the models say.

    python -m tools.demo                 (or `make demo`)
    python -m tools.demo --run digits    with the models of `make run`

Shows the probabilities of all models and the ensemble, the picture as the models see it, and the
LSTM's belief after each row. Pictures can be dropped, too. Listens on 127.0.0.1 only and loads
nothing from other places. Without `--run`, uses the models in `data/`, or else the newest in
`runs/`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stages.common.arrays import read_manifest, read_split
from stages.common.cli import StageError, run
from stages.common.params import load_params
from stages.training.runtime import choose_threads, configure
from tools.predict import RUNS, SAMPLE, Look, as_input, check_data, enter_run, look_of

if TYPE_CHECKING:
    import gradio
    import keras

HOST = "127.0.0.1"
PORT = 7860
CANVAS = 400  # pixels per side
PEN = 18  # pixels; strokes are about an eighth of a digit's height in MNIST
SCALE = 8  # screen pixels per pixel of the input
NAMES = {"cnn": "CNN", "lstm": "LSTM", "hybrid": "Hybrid"}
READY = "Draw a digit with the mouse or a finger."
STOP = "stopped"
# Gradio's canvas starts without a tool.
TAKE_BRUSH = """() => {
    const waiting = setInterval(() => {
        const brush = document.querySelector("button[aria-label=Brush]");
        if (brush) { brush.click(); clearInterval(waiting); }
    }, 100);
}"""


@dataclass(frozen=True)
class Models:
    """The trained models, in the order of `params.yaml`, and the data that they know."""

    models: dict[str, keras.Model]
    class_names: list[str]
    look: Look


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a digit and see what the models say.")
    parser.add_argument("--run", metavar="NAME", help="use the models in runs/NAME")
    parser.add_argument("--port", type=int, default=PORT, help=f"on {HOST} ({PORT})")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    arguments = parser.parse_args()
    if not importlib.util.find_spec("gradio"):
        raise StageError(
            "the demo needs Gradio, which is not installed: `make demo` installs it, or "
            "pip install --require-hashes -r extras/demo/requirements.txt"
        )
    enter_trained(arguments.run)
    known = load_models()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = HOST  # Gradio asks its own server first
    import gradio

    page(known).launch(
        server_name=HOST,
        server_port=arguments.port,
        inbrowser=not arguments.no_browser,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )


def enter_trained(name: str | None) -> None:
    """Make the folder of trained models the working directory: `runs/NAME` if there is a name.

    Raises
    ------
    StageError
        No models are trained.
    """
    if name:
        enter_run(name)
    elif not list(Path("data/models").glob("*.keras")):
        trained = [path.parents[2] for path in RUNS.glob("*/data/models/*.keras")]
        if not trained:
            raise StageError("no model is trained: type `make run` first, then `make demo`")
        enter_run(max(trained, key=lambda folder: folder.stat().st_mtime).name)


def load_models() -> Models:
    """Load the models in the working directory. Sequences of images raise StageError."""
    manifest, params = read_manifest(), load_params()
    if len(manifest["image_shape"]) != 3:
        raise StageError(f"{manifest['dataset']} has sequences; the demo takes single pictures")
    for name in params.models:
        check_data(name)
    look = look_of(np.asarray(read_split("train").x[:SAMPLE]), manifest["dataset"])
    configure(choose_threads(params.train.threads, batch_size=1, batch_norm=False), params.seed)
    from stages.models.shared.archive import load_model

    models = {name: load_model(Path(f"data/models/{name}.keras")) for name in params.models}
    return Models(models, manifest["class_names"], look)


def page(known: Models) -> gradio.Blocks:
    """Return the page of the demo."""
    import gradio as gr

    with gr.Blocks(title="Draw a digit", analytics_enabled=False) as blocks:
        gr.Markdown("# What do the models see?")
        with gr.Row():
            with gr.Column():
                with gr.Tab("Draw"):
                    canvas = gr.Sketchpad(
                        type="pil", show_label=False, buttons=[], layers=False, transforms=(),
                        canvas_size=(CANVAS, CANVAS), height=CANVAS + 80,
                        brush=gr.Brush(default_size=PEN, colors=["#000000"], color_mode="fixed"),
                    )  # fmt: skip
                with gr.Tab("Picture"):
                    photo = gr.Image(
                        type="pil", image_mode="RGBA", sources=["upload", "clipboard"],
                        label="Drop a picture", height=CANVAS + 80, buttons=[],
                    )  # fmt: skip
                said = gr.Markdown(READY, elem_id="said")
            with gr.Column():
                seen = gr.Image(label="As the models see it", height=260, buttons=[])
                belief = gr.Plot(show_label=False)
        with gr.Row():
            bars = [
                gr.Label(label=name, num_top_classes=5, elem_id=key)
                for key, name in [*shown_names(known).items(), ("ensemble", "Ensemble")]
            ]
        blocks.load(js=TAKE_BRUSH)
        for source, picture_in in ((canvas, lambda value: value and value["composite"]),
                                   (photo, lambda value: value)):  # fmt: skip
            source.change(
                lambda value, picture_in=picture_in: answer(known, picture_in(value)),
                source,
                [said, seen, belief, *bars],
                show_progress="hidden",
                trigger_mode="always_last",
            )
    return blocks


def shown_names(known: Models) -> dict[str, str]:
    """Return each model's heading on the page."""
    return {name: NAMES.get(name, name) for name in known.models}


def answer(known: Models, picture: Image.Image | None) -> list[Any]:
    """Return what the page shows for a picture: a sentence, pictures and bars of all models."""
    nothing = [None] * (3 + len(known.models))
    if picture is None or not np.asarray(picture.convert("RGBA"))[..., 3].any():
        return [READY, *nothing]
    try:
        x, steps = as_input(picture.convert("RGBA"), known.look)
    except StageError as error:
        return [f"Not classified: {error}", *nothing]
    rows = [np.asarray(model.predict_on_batch(x[None]))[0] for model in known.models.values()]
    rows.append(np.mean(rows, axis=0))
    best = known.class_names[int(rows[-1].argmax())]
    return [
        f"The ensemble says **{best}**. ({', '.join(steps)})",
        enlarged(x),
        belief_plot(known, x),
        *({name: float(p) for name, p in zip(known.class_names, row, strict=True)} for row in rows),
    ]


def enlarged(x: np.ndarray) -> Image.Image:
    """Return an input of the models as a picture, with visible pixels."""
    picture = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
    size = (picture.width * SCALE, picture.height * SCALE)
    return picture.resize(size, Image.Resampling.NEAREST)


def belief_plot(known: Models, x: np.ndarray) -> Any:
    """Return a figure of the LSTM's class probabilities after each row, or None without one."""
    from matplotlib.figure import Figure

    from stages.evaluation.explanations import beliefs, reads_steps

    model = known.models.get("lstm")
    if model is None or not reads_steps(model):
        return None
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    shares = beliefs(model, x[None])[0]
    axes.imshow(shares, aspect="auto", vmin=0, vmax=1, cmap="Blues")
    axes.set(title="The LSTM's belief after each row", xlabel="class", ylabel="rows read")
    axes.set_xticks(range(len(known.class_names)), known.class_names)
    axes.set_yticks(range(0, len(shares), 4), range(1, len(shares) + 1, 4))
    return figure


if __name__ == "__main__":
    run(main, STOP)
