"""The stages leave no file open and raise no warning that a person would see."""

from __future__ import annotations

import pytest

STAGES = [
    ("prepare",),
    ("report",),
    pytest.param(("train", "lstm"), marks=pytest.mark.slow),
    pytest.param(("evaluate",), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[0])
def test_a_stage_closes_what_it_opens(clone, stage):
    done = clone.stage(*stage, PYTHONWARNINGS="always::ResourceWarning")
    assert "ResourceWarning" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[0])
def test_a_stage_says_nothing_on_stderr(clone, stage):
    assert clone.stage(*stage).stderr == ""
