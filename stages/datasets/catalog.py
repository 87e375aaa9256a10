"""Load a dataset by the name or path in `params.yaml`."""

from __future__ import annotations

from pathlib import Path

from stages.common.params import Prepare
from stages.datasets.digit_sequences import load_digit_sequences
from stages.datasets.digits import load_digits
from stages.datasets.labelled_images import Dataset
from stages.datasets.own_data import load_own
from stages.datasets.published import REMOTES, load_remote


def load_dataset(name: str, prepare: Prepare | None = None) -> Dataset:
    """Return the dataset that `dataset` in `params.yaml` names.

    Parameters
    ----------
    name
        ``mnist``, ``fashion_mnist``, ``digits``, ``digit_sequences``, or the path of a user's file
        or folder.
    prepare
        How a user's own data are read; other datasets do not need it.

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
    return load_own(Path(name), prepare)
