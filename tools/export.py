"""Export the trained models for programs without Keras.

    python -m tools.export                     (or `make export`)
    python -m tools.export --run digits        the models of `make run`

Writes to `data/export/`, for each model: `MODEL/`, a TensorFlow SavedModel; `MODEL.tflite`, for
LiteRT on phones and small devices; `MODEL.onnx`, if the packages of extras/onnx are installed. All
take one image per call, float32 (1, height, width, channels) in [0, 255], and return probabilities,
float32 (1, classes). LiteRT and ONNX need `train.precision: float32`. Prints how each version
compares with Keras on all test images, and writes it to `summary.csv`. Ends with status 1 if a
version gives another class for any of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common.arrays import read_split
from stages.common.cli import StageError, run
from stages.common.files import write_csv
from stages.common.params import load_params
from stages.reporting.table import markdown
from stages.training.runtime import choose_threads, configure
from tools.predict import enter_run

if TYPE_CHECKING:
    import keras

FOLDER = Path("data/export")
TIMED = 300  # images, one per call

Call = Callable[[np.ndarray], np.ndarray]  # one image with a leading axis -> its probabilities


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the models for programs without Keras.")
    parser.add_argument("--run", metavar="NAME", help="use the models in runs/NAME")
    name = parser.parse_args().run
    if name:
        enter_run(name)
    params = load_params()
    x = read_split("test").x
    configure(choose_threads(1, batch_size=1, batch_norm=False), params.seed)
    rows = [row for model in params.models for row in versions(model, x)]
    write_csv(FOLDER / "summary.csv", rows)
    columns = list(rows[0])
    text = [[str(row[column]) for column in columns] for row in rows]
    print(markdown([columns, *text], [False, False, *[True] * (len(columns) - 2)]))
    if not importlib.util.find_spec("tf2onnx"):
        print("no ONNX: `make export ONNX=1` installs what it needs")
    print(f"wrote {FOLDER.resolve()}")
    if wrong := [row for row in rows if row["other_classes"]]:
        raise StageError(
            f"{wrong[0]['model']} as {wrong[0]['version']} gives another class than Keras for "
            f"{wrong[0]['other_classes']} of {len(x)} test images"
        )


def versions(name: str, x: np.ndarray) -> Iterator[dict[str, Any]]:
    """Export a model, and yield one row per version, Keras's own first.

    Yields
    ------
    dict
        ``model, version``; ``other_classes``: number of test images with another class than in
        Keras; ``largest_difference`` of a probability; ``kilobytes``; ``milliseconds`` per image,
        median over single images on one core.
    """
    from stages.models.shared.archive import load_model
    from stages.models.shared.inference import predict

    file = Path(f"data/models/{name}.keras")
    model = load_model(file)
    wanted = predict(model, x)
    calls: dict[str, tuple[Path, Call]] = {
        "Keras": (file, lambda image: np.asarray(model.predict_on_batch(image)))
    }
    calls |= exported(model, name)
    for version, (path, call) in calls.items():
        timed = x[:TIMED].astype(np.float32)
        seconds = [timing(call, image[None]) for image in timed]
        found = wanted
        if version != "Keras":
            found = np.concatenate([call(image[None].astype(np.float32)) for image in x])
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        yield {
            "model": name,
            "version": version,
            "other_classes": int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum()),
            "largest_difference": f"{np.abs(found - wanted).max():.1e}",
            "kilobytes": round(sum(each.stat().st_size for each in files) / 1000),
            "milliseconds": f"{1000 * statistics.median(seconds):.2f}",
        }


def timing(call: Call, image: np.ndarray) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call(image)
    return time.perf_counter() - started


def exported(model: keras.Model, name: str) -> dict[str, tuple[Path, Call]]:
    """Write the versions of a model. Return the path of each, and a function that runs it.

    The batch size is fixed at 1: with a variable one, LiteRT lacks an operation of the LSTM.
    """
    import keras
    import tensorflow as tf

    shape = (1, *model.input_shape[1:])
    signature = {"input_signature": [keras.InputSpec(shape=shape, dtype="float32")]}
    saved, lite, onnx = FOLDER / name, FOLDER / f"{name}.tflite", FOLDER / f"{name}.onnx"
    FOLDER.mkdir(parents=True, exist_ok=True)
    for earlier in (lite, onnx):
        earlier.unlink(missing_ok=True)
    model.export(saved, format="tf_saved_model", verbose=False, **signature)
    loaded = tf.saved_model.load(saved)
    found: dict[str, tuple[Path, Call]] = {
        "SavedModel": (saved, lambda image: loaded.serve(image).numpy())
    }
    if any(layer.compute_dtype == "bfloat16" for layer in model.layers):
        print(
            f"no LiteRT or ONNX of {name}: they need float32; set train.precision to it and train"
        )
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LiteRT moves to a package of its own
        model.export(lite, format="litert", verbose=False, **signature)
        interpreter = tf.lite.Interpreter(str(lite), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run_lite(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    found["LiteRT"] = (lite, run_lite)
    if importlib.util.find_spec("tf2onnx"):
        import onnxruntime

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tf2onnx about NumPy
            model.export(onnx, format="onnx", verbose=False, **signature)
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        key = session.get_inputs()[0].name
        found["ONNX"] = (onnx, lambda image: session.run(None, {key: image})[0])
    return found


if __name__ == "__main__":
    run(main)
