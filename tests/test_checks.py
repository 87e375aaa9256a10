"""Duplicates, wrong labels, constant images and rare classes are counted and said."""

from __future__ import annotations

import time

import numpy as np
import pytest

from stages.datasets.checks import check, contact_sheet

NAMES = ("a", "b")


@pytest.fixture
def parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parts without anything noticeable: 20, 6 and 6 different images."""
    x = np.random.default_rng(0).integers(0, 256, (32, 5, 4, 1)).astype(np.uint8)
    y = np.arange(32) % 2
    slices = {"train": slice(20), "val": slice(20, 26), "test": slice(26, 32)}
    return {part: (x[each].copy(), y[each].copy()) for part, each in slices.items()}


def test_good_data_give_no_message(parts):
    found = check(parts, NAMES)
    assert set(found["duplicates"].values()) == {0}
    assert set(found["duplicates"]) == {
        "train", "val", "test", "train_val", "train_test", "val_test",
    }  # fmt: skip
    assert (found["conflicting_labels"], found["constant_images"]) == (0, 0)
    assert (found["small_classes"], found["imbalance"], found["messages"]) == ({}, 1.0, [])


def test_duplicates_are_counted_within_and_across_parts(parts):
    train, val, test = (parts[part][0] for part in parts)
    train[2] = train[4] = train[0]
    test[0], test[2], val[0] = train[0], train[0], train[6]
    test[4] = val[2]
    found = check(parts, NAMES)
    assert found["duplicates"] == {
        "train": 2, "val": 0, "test": 1, "train_val": 1, "train_test": 2, "val_test": 1,
    }  # fmt: skip
    assert found["conflicting_labels"] == 0
    assert found["messages"][:2] == [
        "warning: 2 of 6 test images are also in the training set; the test accuracy is too high",
        "warning: 1 of 6 validation images are also in the training set; the validation accuracy "
        "is too high",
    ]
    assert "2 of 20 training images equal another one of this part" in found["messages"]


def test_labels_constant_images_and_classes_are_checked(parts):
    x, y = parts["train"]
    x[1], x[3], x[4] = x[0], x[0], 7
    parts["train"] = x[:16], np.where(np.arange(16) < 4, y[:16], 1)
    found = check(parts, NAMES)
    assert found["conflicting_labels"] == 3
    assert found["constant_images"] == 1
    assert found["small_classes"] == {"a": 2}
    assert found["imbalance"] == 7.0
    said = " | ".join(found["messages"])
    for text in (
        "warning: 3 equal images have different labels", "1 images have one value everywhere",
        "classes with fewer than 10 training images: 'a' (2)", "7 times as many training images",
    ):  # fmt: skip
        assert text in said


def test_the_contact_sheet_has_at_most_100_classes_and_empty_places(parts):
    x, y = parts["train"]
    sheet = contact_sheet({"train": (x[:15], y[:15] * 109)}, 110)
    assert sheet.shape == (100, 12, 5, 4, 1)
    assert np.array_equal(sheet[0, :8], x[:15][y[:15] == 0])
    assert not sheet[0, 8:].any()
    assert not sheet[1:].any()


def test_70_000_images_take_seconds():
    x = np.zeros((60_000, 28, 28, 1), np.uint8)
    parts = {"train": (x, np.arange(60_000) % 10), "val": (x[:0], np.arange(0)),
             "test": (x[:10_000], np.arange(10_000) % 10)}  # fmt: skip
    started = time.process_time()
    assert check(parts, tuple("0123456789"))["constant_images"] == 70_000
    assert time.process_time() - started < 5
