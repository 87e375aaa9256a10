"""Training: the augmentation, the loss, the order of the examples, and the same bytes again."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from stages.backend import feed
from stages.files import StageError
from stages.models import build
from stages.training import (
    Arrays,
    Epoch,
    InOrder,
    TrainingGraph,
    fit,
    learning_rate,
    make_optimizer,
    score,
    smoothed_cross_entropy,
    transforms,
)

PLAIN = {"shift": 0, "rotation": 0.0, "zoom": 0.0, "flip": False}
STILL = {f"lstm.{key}": value for key, value in PLAIN.items()}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 1), dtype=np.uint8)


class Draws:
    """Stands for a random generator whose draws are known: the largest, or the smallest."""

    def __init__(self, end: float):
        self.end = end

    def uniform(self, low, high, n):
        return np.full(n, high if self.end > 0 else low, float)

    def integers(self, low, high, size, endpoint):
        assert endpoint
        return np.full(size, high if self.end > 0 else low)

    def random(self, n):
        return np.zeros(n)


@pytest.fixture
def augmented(make_params):
    """Return a function that changes IMAGES by a recipe's largest or smallest draw."""

    def change(recipe: dict, end: float = 1) -> np.ndarray:
        changes = STILL | {f"lstm.{key}": value for key, value in recipe.items()}
        random = np.random.default_rng(1) if end == 0 else Draws(end)
        maps = transforms(random, len(IMAGES), (9, 9), make_params(changes).lstm)
        changed = keras.ops.image.affine_transform(
            IMAGES.astype("float32"), maps, interpolation="bilinear"
        )
        return keras.ops.convert_to_numpy(changed)

    return change


def test_a_recipe_without_augmentation_is_the_identity(augmented):
    assert np.array_equal(augmented({}), IMAGES)


@pytest.mark.parametrize(("end", "by"), [(1, 2), (-1, -2)])
def test_a_shift_moves_whole_pixels_and_fills_with_black(augmented, end, by):
    expected = np.roll(IMAGES, (by, by), (1, 2))
    empty = slice(0, by) if by > 0 else slice(by, None)
    expected[:, empty] = 0
    expected[:, :, empty] = 0
    assert np.array_equal(augmented({"shift": 2}, end), expected)


def test_a_flip_mirrors_left_and_right(augmented):
    assert augmented({"flip": True}) == pytest.approx(IMAGES[:, :, ::-1], abs=1e-3)


def test_a_quarter_turn_is_a_quarter_turn(augmented):
    turned = {k: np.rot90(IMAGES, k, (1, 2)) for k in (1, -1)}
    one, other = augmented({"rotation": 90.0}, 1), augmented({"rotation": 90.0}, -1)
    inner = (slice(None), slice(1, -1), slice(1, -1))  # rounding may take the edge for outside
    sense = 1 if np.allclose(one[inner], turned[1][inner], atol=0.1) else -1
    assert one[inner] == pytest.approx(turned[sense][inner], abs=0.1)
    assert other[inner] == pytest.approx(turned[-sense][inner], abs=0.1)


def test_augmented_pixels_stay_in_range(augmented):
    pixels = augmented({"shift": 2, "rotation": 30.0, "zoom": 0.2, "flip": True}, end=0)
    assert pixels.min() >= 0
    assert pixels.max() <= 255 + 1e-3


@pytest.mark.parametrize("size", [(9, 9), (8, 9)])
def test_whole_pixel_maps_are_the_same_without_interpolation(make_params, size):
    section = make_params({"lstm.shift": 2, "lstm.flip": True}).lstm
    maps = transforms(np.random.default_rng(0), 6, size, section)
    images = IMAGES[:6, : size[0], : size[1]]
    nearest = keras.ops.image.affine_transform(images, maps, interpolation="nearest")
    between = keras.ops.image.affine_transform(
        images.astype("float32"), maps, interpolation="bilinear"
    )
    assert np.array_equal(nearest, between)


def test_images_are_not_augmented_where_nothing_is_learned(make_params):
    section = make_params({"lstm.shift": 2}).lstm
    keras.utils.set_random_seed(0)
    model = build("lstm", (9, 9, 1), 3, section)
    maps = transforms(np.random.default_rng(0), 6, (9, 9), section)
    graph = TrainingGraph(model, section, batch_parts=1)
    inputs = {"image": IMAGES, "transform": maps}
    assert np.array_equal(graph(inputs, training=False), model(IMAGES, training=False))


# --- order --------------------------------------------------------------------------------


def seen(section, seed: int, epoch: int) -> list[bytes]:
    labels = np.arange(50, dtype=np.int32)
    data = Arrays(np.zeros((50, 4, 4, 1), np.uint8), labels)
    batches = Epoch(data, 8, section, seed, epoch)
    labels_seen = [batches[step][1] for step in range(len(batches))]
    assert sorted(np.concatenate(labels_seen)) == list(range(50)), "every example, once"
    return [batch.tobytes() for batch in labels_seen]


def test_the_order_is_a_function_of_seed_and_epoch(make_params):
    section = make_params(STILL).lstm
    assert seen(section, 1, 1) == seen(section, 1, 1)
    assert len({tuple(seen(section, *key)) for key in ((1, 1), (1, 2), (2, 1))}) == 3


# --- recipe -------------------------------------------------------------------------------


def rates(schedule: str, steps: int = 100, warmup: float = 0.25) -> np.ndarray:
    rate = learning_rate(schedule, 0.01, steps, warmup)
    return np.array([float(rate(step)) if callable(rate) else rate for step in range(steps + 1)])


def test_the_schedules_have_their_shapes():
    assert np.array_equal(rates("constant"), np.full(101, 0.01))
    step = np.arange(101)
    assert rates("cosine") == pytest.approx(0.005 * (1 + np.cos(np.pi * step / 100)), abs=1e-8)
    cycle = rates("one_cycle")
    assert cycle[0] == pytest.approx(0.01 / 25)
    assert int(cycle.argmax()) == 25
    assert cycle.max() == pytest.approx(0.01)
    assert (np.diff(cycle[:26]) > 0).all()
    assert (np.diff(cycle[25:]) < 0).all()
    assert cycle[-1] == pytest.approx(0.01 * 1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_decays_kernels_alone(make_params, name):
    params = make_params({
        "train.optimizer": name, "train.schedule": "constant", "lstm.weight_decay": 0.1,
        "lstm.learning_rate": 0.1,
    })  # fmt: skip
    optimizer = make_optimizer(params.train, params.lstm, steps=10)
    assert type(optimizer).__name__.lower() == name
    kernel, bias = (keras.Variable(np.ones(2), name=each) for each in ("kernel", "bias"))
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.zeros(2), keras.ops.zeros(2)])
    assert keras.ops.convert_to_numpy(kernel.value) == pytest.approx(0.99)
    assert keras.ops.convert_to_numpy(bias.value) == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_cross_entropy_against_smoothed_targets(smoothing):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), 6).astype(np.float32)
    y = random.integers(0, 4, 6)
    targets = np.full((6, 4), smoothing / 4)
    targets[np.arange(6), y] += 1 - smoothing
    expected = -(targets * np.log(p)).sum(axis=1).mean()
    loss = keras.ops.mean(smoothed_cross_entropy(smoothing, 4)(y, p))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


# --- parallel parts -----------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
def test_parallel_parts_compute_what_the_plain_model_does(make_params, bidirectional):
    import tensorflow as tf

    changes = {"lstm.units": [8, 8], "lstm.bidirectional": bidirectional, "lstm.dropout": 0.0}
    section = make_params(STILL | changes).lstm
    keras.utils.set_random_seed(0)
    model = build("lstm", (9, 9, 1), 3, section)

    def output_and_gradients(parts: int):
        with tf.GradientTape() as tape:
            p = TrainingGraph(model, section, parts)({"image": IMAGES[:5]}, training=True)
            loss = tf.reduce_sum(p * p)
        weights = [variable.value for variable in model.trainable_variables]
        return p.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, weights)]

    plain, plain_gradients = output_and_gradients(1)
    parts, gradients = output_and_gradients(2)
    assert parts == pytest.approx(plain, abs=1e-6)
    assert len(gradients) == len(plain_gradients) > 6
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


# --- a whole training ---------------------------------------------------------------------


@pytest.fixture
def learn(make_params):
    """Return a function that trains an LSTM on easy images: its rows, and how it scores."""
    from conftest import tiny_arrays

    arrays = tiny_arrays(per_class=60)
    data = Arrays(arrays["x_train"][..., None], arrays["y_train"])
    held_out = Arrays(arrays["x_test"][..., None], arrays["y_test"])

    def train(changes: dict, epochs: int):
        params = make_params(STILL | {"train.batch_size": 16, "lstm.dropout": 0.0} | changes)
        keras.utils.set_random_seed(params.seed)
        model = build("lstm", (12, 12, 1), 3, params.lstm)
        rows = list(fit(
            model, data, held_out, epochs=epochs, seed=params.seed, train=params.train,
            section=params.lstm, batch_parts=1,
        ))  # fmt: skip
        return rows, score(model, held_out)

    return train


def test_a_model_learns(learn):
    rows, scored = learn({"lstm.learning_rate": 0.02}, epochs=8)
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert scored["accuracy"] >= 0.95
    assert scored["accuracy"] == pytest.approx(rows[-1]["val_accuracy"])
    assert scored["loss"] == pytest.approx(rows[-1]["val_loss"], rel=1e-4)


def test_early_stopping_ends_after_patience_and_keeps_the_best(learn):
    changes = {
        "train.early_stopping": 1, "train.schedule": "constant", "train.optimizer": "sgd",
        "train.momentum": 0.0, "lstm.learning_rate": 5.0,
    }  # fmt: skip
    rows, scored = learn(changes, epochs=30)
    losses = [row["val_loss"] for row in rows]
    assert len(rows) < 30
    assert int(np.argmin(losses)) == len(rows) - 2
    assert scored["loss"] == pytest.approx(min(losses), rel=1e-4)


def test_a_training_that_diverges_stops_with_the_epoch_and_what_to_try(learn):
    changes = {
        "train.schedule": "constant", "train.optimizer": "sgd", "lstm.learning_rate": 1e38,
    }  # fmt: skip
    with pytest.raises(StageError, match=r"lstm: the loss .*epoch 1.*rate 1e\+38.*clip_norm"):
        learn(changes, epochs=3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pipeline, clone):
    """Each training is a process of its own, as in the pipeline."""
    model = clone.path("data/models/hybrid.keras")
    first = pipeline.path("data/models/hybrid.keras").read_bytes()
    model.unlink()
    clone.stage("train", "hybrid")
    assert model.read_bytes() == first
    assert clone.run("git", "diff", "--stat", "--", "plots", "metrics/train").stdout == ""
    model.unlink()
    clone.set({"seed": 2})
    clone.stage("train", "hybrid")
    assert model.read_bytes() != first


def test_batches_reach_the_backend_whole_in_order_and_without_the_tuner_that_sleeps():
    data = Arrays(IMAGES, np.arange(6, dtype=np.int32))
    fed = feed(InOrder(data, batch_size=4))
    assert fed.options().autotune.enabled is False
    assert int(fed.cardinality()) == 2
    batches = [(inputs["image"].numpy(), y.numpy()) for inputs, y in fed]
    assert [len(y) for _, y in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), data.y)


def test_what_keras_imports_for_nothing_is_left_out_and_can_be_imported_afterwards():
    code = (
        "import sys; from stages.backend import OPTIONAL, Threads, configure;"
        "configure(Threads(1, 1, 1), seed=1);"
        "assert 'keras' in sys.modules and not sys.modules.keys() & {*OPTIONAL};"
        "import matplotlib.pyplot, stages.statistics"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
