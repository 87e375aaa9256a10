"""Training: augmentation, order of the images, recipe, parallel parts, learning, early stopping."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import tiny_arrays
from sklearn.utils.class_weight import compute_sample_weight

from stages.common.arrays import Arrays
from stages.common.cli import StageError
from stages.datasets.digits import load_digits
from stages.models import build
from stages.training import loop
from stages.training.augmentation import border_level, transforms
from stages.training.batches import Epochs
from stages.training.loop import TrainingGraph, check_convergence
from stages.training.optimizer import learning_rate, make_optimizer, smoothed_cross_entropy
from stages.training.session import Training, progress_line, train_model

pytestmark = pytest.mark.usefixtures("backend")
MODELS = ("cnn", "lstm", "hybrid")
STILL = {
    f"{name}.{key}": value
    for name in MODELS
    for key, value in {"shift": 0, "rotation": 0.0, "zoom": 0.0, "flip": False}.items()
}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 1), dtype=np.uint8)


@pytest.fixture(autouse=True)
def float32_again():
    """Undo what a test changed."""
    yield
    keras.config.set_dtype_policy("float32")


def draws(end: float) -> SimpleNamespace:
    """Return a random generator that always draws the largest (`end` 1) or the smallest number."""
    return SimpleNamespace(
        uniform=lambda low, high, n: np.full(n, high if end > 0 else low, float),
        integers=lambda low, high, size, **_: np.full(size, high if end > 0 else low),
        random=np.zeros,
    )


@pytest.fixture
def augmented(make_params):
    """Return a function that returns what the training graph shows to the model.

    `end` chooses the largest (1), the smallest (-1) or a random (0) draw.
    """

    def show(
        recipe: dict, end: float = 1, images=IMAGES, training: bool = True, border=(0,)
    ) -> np.ndarray:
        section = make_params(STILL | {f"lstm.{key}": value for key, value in recipe.items()}).lstm
        random = draws(end) if end else np.random.default_rng(1)
        maps = transforms(random, len(images), images.shape[1:3], section)
        identity = keras.Sequential(
            [keras.layers.Input(images.shape[1:]), keras.layers.Rescaling(1.0, dtype="float32")]
        )
        graph = TrainingGraph(identity, section, batch_parts=2, border=border)
        inputs = {"image": keras.ops.convert_to_tensor(images), "transform": maps}
        return keras.ops.convert_to_numpy(graph(inputs, training=training))

    return show


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_model_sees_shifted_flipped_and_turned_images(augmented, dtype):
    keras.config.set_dtype_policy(dtype)
    assert np.array_equal(augmented({}), IMAGES)
    assert np.array_equal(augmented({"shift": 2}, training=False), IMAGES)
    for end, empty in ((1, slice(0, 2)), (-1, slice(-2, None))):
        moved = np.roll(IMAGES, (2 * end, 2 * end), (1, 2))
        moved[:, empty] = moved[:, :, empty] = 0
        assert np.array_equal(augmented({"shift": 2}, end), moved)
    assert np.array_equal(augmented({"flip": True}), IMAGES[:, :, ::-1])
    inner = (slice(None), slice(1, -1), slice(1, -1))  # rounding may take the edge for outside
    for end in (1, -1):
        turned = np.rot90(IMAGES, end, (1, 2))[inner]
        assert augmented({"rotation": 90.0}, end)[inner] == pytest.approx(turned, abs=0.1)
    half = augmented({"zoom": 0.5}, -1)
    assert half[:, 4, 4] == pytest.approx(IMAGES[:, 4, 4])
    assert half[:, 4, 6] == pytest.approx(IMAGES[:, 4, 8])
    mixed = augmented({"shift": 2, "rotation": 30.0, "zoom": 0.2, "flip": True}, 0)
    assert 0 <= mixed.min() < mixed.max() <= 255 + 1e-3


def test_uncovered_places_get_the_level_of_the_border(augmented):
    colour = np.repeat(IMAGES, 3, axis=-1) // 2
    colour[:, [0, -1]] = colour[:, :, [0, -1]] = (250, 10, 90)
    assert border_level(colour) == border_level(np.stack([colour, colour], axis=1)) == (250, 10, 90)
    assert border_level(np.zeros((3, 5, 4, 1), np.uint8)) == (0,)
    for images, border in ((colour, (250, 10, 90)), (IMAGES, (7,)), (colour, (7, 7, 7))):
        for recipe in ({"shift": 2}, {"shift": 2, "rotation": 1e-9}):
            shown = augmented(recipe, images=images, border=border)
            assert (shown[:, :2] == border).all()
            assert np.allclose(shown[:, 3:, 3:], images[:, 1:-2, 1:-2], atol=0.01)


def test_training_fills_uncovered_places_with_the_level_of_the_border(train, monkeypatch):
    light = tuple(Arrays(255 - part.x, part.y) for part in BANDS)
    losses = []
    for level in (border_level, lambda _: border_level(light[0].x), lambda _: (0,)):
        monkeypatch.setattr(loop, "border_level", level)
        recipe = {"epochs": 1, "lstm.shift": 3}
        losses.append(train("lstm", recipe, light).history[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_maps_of_wide_images_are_exact_in_bfloat16(augmented):
    """A flip moves pixels by up to the width. bfloat16 rounds whole numbers above 256."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    wide = np.random.default_rng(0).integers(0, 256, (2, 4, 302, 1), dtype=np.uint8)
    assert np.array_equal(augmented({"flip": True}, images=wide), wide[:, :, ::-1])


def test_a_shift_as_large_as_the_image_is_refused(train):
    with pytest.raises(StageError, match=r"lstm\.shift is 12 pixels, which moves the whole 12×12"):
        train("lstm", {"lstm.shift": 12})


def test_order_and_augmentation_depend_on_seed_and_epoch_only(make_params):
    section = make_params(STILL | {"lstm.shift": 2}).lstm
    data = Arrays(np.zeros((50, 4, 4, 1), np.uint8), np.arange(50, dtype=np.int32))

    def epoch(seed: int, number: int) -> tuple:
        batches = Epochs(data, 8, section, seed)
        batches.start(number)
        seen = [batches[step] for step in range(len(batches))]
        assert sorted(np.concatenate([y for _, y in seen])) == list(range(50))
        return tuple((y.tobytes(), inputs["transform"].tobytes()) for inputs, y in seen)

    assert epoch(1, 1) == epoch(1, 1)
    for part in (0, 1):
        found = {tuple(batch[part] for batch in epoch(*key)) for key in ((1, 1), (1, 2), (2, 1))}
        assert len(found) == 3


def test_the_schedules_have_their_shapes():
    step = np.arange(101)
    assert learning_rate("constant", 0.01, 100, 0.25) == 0.01
    cosine, cycle = (
        np.array([float(rate(each)) for each in step])
        for rate in (learning_rate(name, 0.01, 100, 0.25) for name in ("cosine", "one_cycle"))
    )
    assert cosine == pytest.approx(0.005 * (1 + np.cos(np.pi * step / 100)), abs=1e-8)
    assert (cycle[0], cycle[25], cycle[-1]) == pytest.approx((0.01 / 25, 0.01, 0.01 * 1e-3))
    assert (np.diff(cycle[:26]) > 0).all()
    assert (np.diff(cycle[25:]) < 0).all()


def step(make_params, changes: dict, gradients: list[float]) -> list[float]:
    """Return a kernel and a bias, both 1 before, after one step with these gradients."""
    constant = {"train.schedule": "constant", "lstm.learning_rate": 0.1, "train.momentum": 0.0}
    params = make_params(constant | changes)
    optimizer = make_optimizer(params.train, params.lstm, steps=10)
    assert type(optimizer).__name__.lower() == params.train.optimizer
    variables = [keras.Variable(np.ones(1), name=name) for name in ("kernel", "bias")]
    optimizer.build(variables)
    optimizer.apply([keras.ops.convert_to_tensor([gradient]) for gradient in gradients])
    return [float(variable.value[0]) for variable in variables]


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_decays_only_kernels(make_params, name):
    after = step(make_params, {"train.optimizer": name, "lstm.weight_decay": 0.1}, [0.0, 0.0])
    assert after == pytest.approx([0.99, 1])


@pytest.mark.parametrize(
    ("clip_norm", "expected"), [(0.0, [0.7, 0.6]), (1.0, [0.94, 0.92]), (6.0, [0.7, 0.6])]
)
def test_gradients_are_clipped_to_the_global_norm(make_params, clip_norm, expected):
    """The gradients (3, 4) have norm 5. The rate is 0.1."""
    changes = {"train.optimizer": "sgd", "train.clip_norm": clip_norm}
    assert step(make_params, changes, [3.0, 4.0]) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_cross_entropy_with_smoothed_targets(smoothing):
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), 6).astype(np.float32)
    y = random.integers(0, 4, 6)
    targets = np.full((6, 4), smoothing / 4)
    targets[np.arange(6), y] += 1 - smoothing
    expected = -(targets * np.log(p)).sum(axis=1).mean()
    loss = keras.ops.mean(smoothed_cross_entropy(smoothing, 4)(y, p))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_parallel_parts_compute_the_same_as_the_plain_model(make_params, bidirectional):
    import tensorflow as tf

    changes = {"lstm.units": [8, 8], "lstm.bidirectional": bidirectional, "lstm.dropout": 0.0}
    section = make_params(STILL | changes).lstm
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


def as_data(arrays: dict[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    """Return `tiny_arrays` as training and validation data."""
    x, y, x_val, y_val = arrays.values()
    return Arrays(x[..., None], y), Arrays(x_val[..., None], y_val)


BANDS = as_data(tiny_arrays(per_class=60))  # 180 images to train on, 90 to validate on


@pytest.fixture
def train(make_params):
    """Return a function that trains a model, by default without augmentation on `BANDS`."""

    def run(name: str, changes: dict, data=BANDS, classes: int = 3, **options) -> Training:
        params = make_params(
            STILL | {"train.batch_size": 16, "train.threads": 2, "lstm.dropout": 0.0} | changes
        )
        return train_model(name, params, *data, classes, log=lambda _: None, **options)

    return run


DIGITS = {
    "epochs": 6, "train.batch_size": 32,
    "cnn.filters": [16, 32], "cnn.dense": 32, "cnn.learning_rate": 0.005, "cnn.shift": 1,
    "lstm.units": [48], "lstm.dense": 32, "lstm.learning_rate": 0.01,
    "hybrid.filters": [16], "hybrid.units": [32], "hybrid.dense": 32,
    "hybrid.learning_rate": 0.005, "hybrid.shift": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_digits_to_90_percent(train, name):
    digits = load_digits()
    data = Arrays(digits.x_train, digits.y_train), Arrays(digits.x_test, digits.y_test)
    training = train(name, DIGITS, data, classes=10)
    assert [row["epoch"] for row in training.history] == [1, 2, 3, 4, 5, 6]
    last, scored = training.history[-1], training.score(data[1])
    assert last["loss"] < training.history[0]["loss"] / 2
    assert scored["accuracy"] == pytest.approx(last["val_accuracy"])
    assert scored["loss"] == pytest.approx(last["val_loss"], rel=1e-4)
    assert scored["accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("axis", "recipe", "precision"),
    [(1, {"lstm.flip": True}, "float32"), (0, {"lstm.rotation": 180.0}, "mixed_bfloat16")],
)
def test_augmentation_hides_what_it_varies(train, axis, recipe, precision):
    """A model cannot tell left from right if half of the training images are mirrored."""
    halves = tuple(  # which half, along an axis of the image, is bright?
        Arrays(data.x.swapaxes(1, 1 + axis), data.y)
        for data in as_data(tiny_arrays(classes=2, per_class=60))
    )
    changes = {"epochs": 8, "lstm.learning_rate": 0.02, "train.precision": precision}
    assert train("lstm", changes, halves, 2).history[-1]["accuracy"] > 0.95
    assert train("lstm", changes | recipe, halves, 2).history[-1]["accuracy"] < 0.75


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_a_validation_set_whose_last_batch_has_fewer_images_than_parts(train, name):
    """Of 251 validation images, the last batch of 250 has one. Batches of 128 have two parts."""
    arrays = tiny_arrays(per_class=168)
    data = as_data({key: array[:251] if "test" in key else array for key, array in arrays.items()})
    assert len(data[1].y) == 251
    training = train(name, {"train.batch_size": 128, "epochs": 1}, data)
    assert training.threads.batch_parts == 2
    scored = training.score(data[1])["loss"]
    assert scored == pytest.approx(training.history[-1]["val_loss"], rel=1e-4)


def test_several_steps_per_call_of_the_backend_change_nothing(train, monkeypatch):
    """An epoch has 12 steps, the last with 4 of 16 images; 5 steps per call leave 2 over."""

    def after_two_epochs(steps_per_execution: int) -> tuple:
        monkeypatch.setattr(loop, "STEPS_PER_EXECUTION", steps_per_execution)
        states = []
        monkeypatch.setattr(
            loop, "state", lambda graph: states.append(int(graph.optimizer.iterations)) or []
        )
        training = train("lstm", {"epochs": 2, "lstm.shift": 1})
        losses = [row[key] for row in training.history for key in ("loss", "val_loss")]
        return states, losses, training.model.get_weights()

    several, one = after_two_epochs(5), after_two_epochs(1)
    assert several[0] == one[0] == [12, 24]
    assert several[1] == pytest.approx(one[1], rel=1e-5)
    for array, other in zip(several[2], one[2], strict=True):
        assert array == pytest.approx(other, abs=1e-5)


def test_balanced_weights_are_those_of_scikit_learn():
    assert loop.balanced(np.array([0, 2, 2, 2], np.int32)) == pytest.approx([2, *[2 / 3] * 3])
    y = np.random.default_rng(0).integers(0, 4, 50) ** 2
    assert loop.balanced(y) == pytest.approx(compute_sample_weight("balanced", y))


@pytest.mark.parametrize("name", MODELS)
def test_balanced_training_equals_one_on_repeated_images_of_the_rare_class(train, name):
    """Weights count in the loss only: the history shows accuracy and loss without them."""
    x, y = BANDS[0].x, BANDS[0].y
    rare, common = np.flatnonzero(y == 0)[:20], np.flatnonzero(y > 0)
    recipe = {
        "epochs": 2, "train.batch_size": 1000, "train.threads": 1, "train.optimizer": "sgd",
        "train.momentum": 0.0, "train.schedule": "constant", f"{name}.learning_rate": 0.1,
        f"{name}.dropout": 0.0, f"{name}.label_smoothing": 0.1,
    } | ({} if name == "lstm" else {f"{name}.batch_norm": False})  # fmt: skip

    def trained(chosen: np.ndarray, class_weight: str) -> Training:
        data = Arrays(x[chosen], y[chosen]), BANDS[1]
        return train(name, recipe | {"train.class_weight": class_weight}, data)

    few = np.concatenate([rare, common])
    balanced = trained(few, "balanced")
    repeated = trained(np.concatenate([rare, rare, few]), "none")
    plain = trained(few, "none")
    losses = [[row["val_loss"] for row in each.history] for each in (balanced, repeated, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
    first, unweighted = balanced.history[0], plain.history[0]
    assert (first["loss"], first["accuracy"]) == (unweighted["loss"], unweighted["accuracy"])


def test_early_stopping_stops_after_its_patience_and_restores_the_best_weights(train):
    changes = {
        "epochs": 30, "train.early_stopping": 1, "train.schedule": "constant",
        "train.optimizer": "sgd", "train.momentum": 0.0, "lstm.learning_rate": 5.0,
    }  # fmt: skip
    training = train("lstm", changes)
    losses = [row["val_loss"] for row in training.history]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 2
    assert training.score(BANDS[1])["loss"] == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize(("rate", "loss"), [(1e38, "nan"), (1e4, r"\d")])
def test_a_diverging_training_stops_without_a_checkpoint(train, tmp_path, monkeypatch, rate, loss):
    monkeypatch.chdir(tmp_path)
    changes = {"train.schedule": "constant", "train.optimizer": "sgd", "lstm.learning_rate": rate}
    with pytest.raises(StageError) as refusal:
        train("lstm", changes, checkpoint_facts={})
    said = (
        rf"lstm: training diverges\. The loss is {loss}.* after epoch \d.*, at learning rate 1e.*"
    )
    assert re.fullmatch(rf"{said} Try a smaller lstm\.learning_rate, or .*", str(refusal.value))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("losses", "stops"),
    [((99,), False), ((99, 1, 99), False), ((1, 99, 99), True), ((1, math.nan), True)],
)
def test_one_epoch_with_a_high_loss_does_not_stop_a_training(backend, losses, stops):
    model = backend.Sequential([backend.Input((2,)), backend.layers.Dense(3)], name="m")
    rows = [{"epoch": i, "loss": loss, "val_loss": 1.0, "learning_rate": 0.1}
            for i, loss in enumerate(losses, 1)]  # fmt: skip
    with pytest.raises(StageError, match="m: training diverges") if stops else nullcontext():
        check_convergence(rows, [np.ones(3)], model)


def test_an_epochs_line_labels_its_numbers_and_estimates_without_the_first_epoch():
    row = {"accuracy": 0.5, "val_accuracy": 0.25, "loss": 1.0, "val_loss": 2.0,
           "learning_rate": 1e-3}  # fmt: skip
    seconds = [60.0, 2.0, 4.0, 3.0]  # the first epoch builds the graph
    history = [row | {"epoch": i, "seconds": each} for i, each in enumerate(seconds, start=1)]
    line = progress_line("cnn", history, epochs=10)
    assert re.sub(r" +", " ", line) == (
        "cnn epoch 4/10 accuracy 50.00 %, validation 25.00 % loss 1.0000, validation 2.0000 "
        "rate 1.0e-03 3.0 s, about 18 s left"
    )
    assert "about 540 s left" in progress_line("cnn", history[:1], epochs=10)
