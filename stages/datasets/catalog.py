"""Load a dataset by the name or path in `params.yaml`."""

from __future__ import annotations

from pathlib import Path

from stages.datasets.digit_sequences import load_digit_sequences
from stages.datasets.digits import load_digits
from stages.datasets.labelled_images import Dataset
from stages.datasets.own_data import load_npz
from stages.datasets.published import REMOTES, load_remote


def load_dataset(name: str) -> Dataset:
    """Return the dataset that `dataset` in `params.yaml` names.

    Parameters
    ----------
    name
        ``mnist``, ``fashion_mnist``, ``digits``, ``digit_sequences``, or the path of an ``.npz``
        file with the arrays ``x_train, y_train, x_test, y_test`` and optionally ``class_names``.

    Raises
    ------
    StageError
        The data are missing, damaged or not as expected. Existing files are not changed.
    """
    if name == "digits":
        return load_digits()
    if name == "digit_sequences":
        return load_digit_sequences()
    if name in REMOTES:
        return load_remote(REMOTES[name])
    return load_npz(Path(name))
