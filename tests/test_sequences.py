"""Sequences: the generated data set, and arrays with a time axis from augmentation to results."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
from conftest import ROOT, tiny_arrays

from stages.common.arrays import Arrays, array_digest
from stages.common.cli import StageError
from stages.common.overrides import flatten, with_overrides
from stages.common.params import parse_params, read_yaml
from stages.datasets.catalog import load_dataset
from stages.datasets.labelled_images import Dataset
from stages.datasets.own_data import load_own
from stages.models import build
from stages.training.augmentation import transforms
from stages.training.loop import TrainingGraph
from stages.training.session import Training, train_model

DIGESTS = {
    "x_train": "3fa1d9a9ab0755d6187aba5bada0f5d63ca336c6e9c1e8b54299735e0e5acc34",
    "y_train": "7dfbb64e87577aaca29fba2fc235c3a5e245afc1d6d9f22c8f43bd5d2a2831d6",
    "x_test": "dd48d92b7fb57daa2c77cefbea218ef368397dde70c4bee63bedc041513dd595",
    "y_test": "10ee46250bd9ebe2c1a33ab6a06ad30e3e7dc2e02da54898f62cbe9bf2318e84",
}
SHAPE = (3, 12, 12, 1)  # of the small sequences: time, height, width, channels


# --- digit_sequences ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated() -> Dataset:
    return load_dataset("digit_sequences")


def test_the_generated_bytes_are_always_the_same(generated):
    assert {name: array_digest(getattr(generated, name)) for name in DIGESTS} == DIGESTS
    assert generated.x_train.shape == (10_000, 6, 28, 28, 1)
    assert generated.x_test.shape == (1_000, 6, 28, 28, 1)
    assert generated.class_names == tuple("123456789")


def stroke(image: np.ndarray) -> bytes:
    """Return an image without the empty rows and columns around its stroke."""
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return bytes(cut.shape) + cut.tobytes()


@pytest.fixture(scope="module")
def digits_read(generated) -> dict[str, np.ndarray]:
    """The digits in the frames of each part, (n, 6), read by someone who knows every image.

    Reading the test set fails if it shows an image of the training set, and the reverse.
    """
    digits, read = load_dataset("digits"), {}
    for part in ("train", "test"):
        images, labels = getattr(digits, f"x_{part}"), getattr(digits, f"y_{part}")
        known = {stroke(image[..., 0]): y for image, y in zip(images, labels, strict=True)}
        frames = getattr(generated, f"x_{part}")[..., 0]
        read[part] = np.array([[known[stroke(frame)] for frame in each] for each in frames])
    return read


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_class_is_the_digit_that_follows_the_zero(generated, digits_read, part):
    read, y = digits_read[part], getattr(generated, f"y_{part}")
    assert all(len(set(digits)) == 6 for digits in read.tolist()), "the digits all differ"
    following = [digits[digits.index(0) + 1] for digits in read.tolist()]
    assert following == [int(generated.class_names[label]) for label in y]
    counts = np.bincount(y)
    assert len(counts) == 9
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_perfect_reader_who_ignores_the_order_gets_one_of_five_right(
    generated, digits_read, part
):
    """The reader knows all digits of a sequence, and the best answer for each set of digits."""
    answers: dict[tuple[int, ...], Counter] = {}
    for digits, label in zip(digits_read[part], getattr(generated, f"y_{part}"), strict=True):
        answers.setdefault(tuple(sorted(digits)), Counter())[int(label)] += 1
    right = sum(counter.most_common(1)[0][1] for counter in answers.values())
    assert len(answers) > 90, "many sets of digits"
    assert right / len(digits_read[part]) == 0.20


def test_the_digits_are_at_many_positions(generated):
    rows = generated.x_test[..., 0].any(axis=-1).argmax(axis=-1)
    columns = generated.x_test[..., 0].any(axis=-2).argmax(axis=-1)
    assert np.bincount(rows.ravel())[:9].min() > 100
    assert np.bincount(columns.ravel())[:9].min() > 100


# --- arrays with a time axis --------------------------------------------------------------


def test_own_data_may_have_a_time_axis(make_npz, make_params):
    dataset = load_own(make_npz(side=(4, 8, 9, 3)), make_params().prepare)
    assert dataset.x_train.shape[1:] == (4, 8, 9, 3)
    with pytest.raises(StageError, match="x_train"):
        load_own(make_npz(side=(4, 8, 9, 2)), make_params().prepare)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("recipe", [{"shift": 3}, {"rotation": 30.0, "zoom": 0.2}, {"flip": True}])
def test_all_frames_of_a_sequence_are_augmented_alike(make_params, recipe):
    changes = {"shift": 0, "rotation": 0.0, "zoom": 0.0, "flip": False} | recipe
    section = make_params({f"lstm.{key}": value for key, value in changes.items()}).lstm
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 2), dtype=np.uint8)
    maps = transforms(np.random.default_rng(1), len(images), images.shape[1:3], section)

    def seen(x: np.ndarray) -> np.ndarray:
        identity = keras.Sequential(
            [keras.layers.Input(x.shape[1:]), keras.layers.Rescaling(1.0, dtype="float32")]
        )
        graph = TrainingGraph(identity, section, batch_parts=2)
        inputs = {"image": keras.ops.convert_to_tensor(x), "transform": maps}
        return keras.ops.convert_to_numpy(graph(inputs, training=True))

    moved = seen(images)
    assert not np.array_equal(moved, images)
    assert np.array_equal(seen(np.stack([images, 255 - images, images], axis=1))[:, 2], moved)
    assert np.array_equal(seen(np.stack([255 - images, images], axis=1))[:, 1], moved)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("name", "changes", "blind"),
    [("cnn", {"cnn.frames": "mean"}, True), ("cnn", {"cnn.frames": "channels"}, False),
     ("lstm", {}, False), ("hybrid", {}, False), ("hybrid", {"hybrid.kind": "convlstm"}, False)],
)  # fmt: skip
def test_only_the_cnn_with_the_mean_over_frames_ignores_their_order(
    make_params, name, changes, blind
):
    keras.utils.set_random_seed(1)
    model = build(name, SHAPE, 3, make_params(changes).models[name])
    x = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), dtype=np.uint8)
    forward, backward = model.predict_on_batch(x), model.predict_on_batch(x[:, ::-1])
    assert np.allclose(forward, backward, atol=1e-5) == blind


# --- training -----------------------------------------------------------------------------

RECIPES = {  # every value of every choice occurs; `tests/test_models.py` builds all combinations
    "cnn": {"cnn.frames": "mean", "cnn.head": "average"},
    "cnn, channels": {"cnn.frames": "channels"},
    "lstm": {"lstm.cell": "gru", "lstm.read": "both", "lstm.pool": "mean", "lstm.units": [8, 8]},
    "lstm, columns": {"lstm.cell": "rnn", "lstm.read": "columns", "lstm.bidirectional": True},
    "hybrid": {"hybrid.cell": "gru", "hybrid.head": "average", "hybrid.pool": "mean"},
    "hybrid, rnn": {"hybrid.cell": "rnn", "hybrid.bidirectional": True},
    "hybrid, convlstm": {"hybrid.kind": "convlstm", "hybrid.bidirectional": True},
    "hybrid, convlstm, mean": {"hybrid.kind": "convlstm", "hybrid.pool": "mean",
                               "hybrid.head": "average"},
}  # fmt: skip
INTERRUPTED = {  # the others run at night
    ("hybrid", "sequences"): pytest.mark.extra, ("cnn", "sequences"): pytest.mark.extra,
}  # fmt: skip


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        pytest.param(recipe, kind, marks=INTERRUPTED.get((recipe, kind), pytest.mark.slow))
        for recipe in RECIPES
        for kind in ("images", "sequences")
    ],
)
def test_an_interrupted_training_ends_in_the_bytes_of_another_run(
    make_params, tmp_path, monkeypatch, recipe, kind
):
    monkeypatch.chdir(tmp_path)
    name = recipe.split(",")[0]
    params = make_params({"epochs": 2, "train.threads": 2} | RECIPES[recipe])
    x, y, x_val, y_val = tiny_arrays(side=SHAPE[:-1], per_class=50).values()
    if kind == "images":
        x, x_val = x[:, 0], x_val[:, 0]
    data = Arrays(x[..., None], y), Arrays(x_val[..., None], y_val)

    def run(after: int | None = None) -> Training:
        def interrupt(history):
            if len(history) == after:
                raise InterruptedError

        return train_model(
            name, params, *data, 3,
            checkpoint_facts={}, on_epoch=interrupt, log=lambda _: None,
        )  # fmt: skip

    def result(training: Training) -> tuple:
        training.checkpoint.remove()
        history = [row | {"seconds": 0} for row in training.history]
        return history, [variable.numpy().tobytes() for variable in training.model.variables]

    expected = result(run())
    with pytest.raises(InterruptedError):
        run(after=1)
    resumed = run()
    assert resumed.resumed == 1
    assert result(resumed) == expected


@pytest.mark.usefixtures("backend")
def test_the_recipe_builds_its_models(generated):
    settings = flatten(read_yaml(ROOT / "recipes/digit_sequences.yaml"))
    params = parse_params(with_overrides(read_yaml(ROOT / "params.yaml"), settings))
    shape, classes = generated.x_train.shape[1:], len(generated.class_names)
    counts = {
        name: build(name, shape, classes, section).count_params()
        for name, section in params.models.items()
    }
    assert counts == {"cnn": 53_833, "lstm": 517_449, "hybrid": 217_497}


@pytest.mark.extra
def test_the_stages_run_on_sequences(project, make_npz):
    project.set({"dataset": str(make_npz(side=SHAPE)), "epochs": 2})
    assert "3×12×12×1, 3 classes" in project.stage("prepare").stdout
    for name in ("cnn", "lstm", "hybrid"):
        project.stage("train", name)
    assert "ensemble" in project.stage("evaluate").stdout
    project.stage("report")
    assert "frame 3" in project.read("plots/report.html")
    project.path("one.png").write_bytes(b"")
    done = project.module("tools.predict", "cnn", "one.png", status=1)
    assert "one.png is one picture, but" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = project.module("tools.predict", "cnn", "../own.npz", "--csv", "out.csv")
    assert done.stdout == "out.csv: 90 images classified, 0 not\n"
