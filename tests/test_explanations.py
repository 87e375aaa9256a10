"""Beliefs after each time step, and maps of the places that a model needs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from stages.models import build

pytestmark = pytest.mark.usefixtures("backend")
CONVOLUTION = {"filters": [3], "kernel_size": 3, "padding": "same"}
RANDOM = np.random.default_rng(1)


@pytest.fixture
def make(make_params):
    """Return a function that gives a model, test images, labels, probabilities and `predict`."""
    from stages.models.shared.inference import predict

    def made(name: str, shape=(9, 8, 1), n=30, **changes):
        changes = {f"{name}.{key}": value for key, value in changes.items()}
        model = build(name, shape, 3, make_params(changes).models[name])
        x = RANDOM.integers(0, 256, (n, *shape), np.uint8)
        y = np.arange(n) % 3
        return model, x, y, predict(model, x), partial(predict, model)

    return made


@pytest.mark.parametrize("changes", [
    {}, {"bidirectional": True, "units": [5, 4]}, {"cell": "gru", "pool": "mean"},
    {"read": "columns"}, {"shape": (4, 9, 8, 1)},
], ids=str)  # fmt: skip
def test_the_last_belief_is_the_prediction(make, changes):
    from stages.evaluation.explanations import explain

    model, x, y, probabilities, predict = make("lstm", **changes)
    found = explain(model, x, y, probabilities, predict)
    assert found["kind"] == "belief"
    values = np.array(found["values"])
    steps = 8 if "read" in changes else changes.get("shape", (9,))[0]
    assert values.shape == (len(found["images"]), steps, 3)
    assert values.sum(axis=-1) == pytest.approx(1, abs=1e-3)
    assert values[:, -1] == pytest.approx(probabilities[found["images"]], abs=1e-3)


def test_a_belief_does_not_depend_on_later_rows(make):
    from stages.evaluation.explanations import beliefs

    model, x, *_ = make("lstm")
    changed = x.copy()
    changed[:, 5:] = 255 - changed[:, 5:]
    first, second = beliefs(model, x), beliefs(model, changed)
    assert first[:, :5] == pytest.approx(second[:, :5], abs=1e-6)
    assert np.abs(first[:, 5:] - second[:, 5:]).max() > 1e-3


@pytest.mark.parametrize(("name", "changes"), [
    ("cnn", CONVOLUTION), ("hybrid", CONVOLUTION), ("lstm", {"read": "both"}),
    ("cnn", CONVOLUTION | {"shape": (4, 9, 8, 1)}),
], ids=str)  # fmt: skip
def test_other_models_get_maps_of_their_most_confident_mistakes(make, name, changes):
    from stages.evaluation.explanations import explain

    model, x, y, probabilities, predict = make(name, **changes)
    found = explain(model, x, y, probabilities, predict)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y)
    by_confidence = sorted(wrong, key=lambda i: -probabilities[i].max())
    assert (found["kind"], found["images"]) == ("occlusion", by_confidence[:4])
    assert np.array(found["values"]).shape == (4, 9, 8)


def test_a_map_shows_where_the_evidence_is():
    from stages.evaluation.explanations import occlusion_map

    image = np.zeros((28, 20, 1), np.uint8)
    image[3:6, 14:17] = 255

    def predict(x):
        evidence = x[:, 3:6, 14:17].mean(axis=(1, 2, 3)) / 255
        return np.stack([evidence, 1 - evidence], axis=1)

    found = occlusion_map(image, 0, predict)
    assert found.shape == (14, 14)
    assert np.unravel_index(found.argmax(), found.shape)[0] in (1, 2)
    assert found.max() == pytest.approx(1)
    assert found[6:].max() == found[:, :6].max() == 0


def test_without_mistakes_there_are_right_images_or_none(make):
    from stages.evaluation.explanations import explain

    model, x, y, _, predict = make("lstm")
    right = np.eye(3)[y]
    assert explain(model, x, y, right, predict)["images"] == [0, 1, 2]
    model, x, y, _, predict = make("cnn", filters=[3])
    assert explain(model, x, y, right, predict) == {"kind": "occlusion", "images": [], "values": []}
