"""The stages print nothing on stderr: no warnings, also none about files left open."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.extra
STAGES = ("prepare", "train lstm", "evaluate", "report")


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=[] if stage == "evaluate" else pytest.mark.slow)
     for stage in STAGES],
)  # fmt: skip
def test_a_stage_prints_nothing_on_stderr(clone, stage):
    done = clone.stage(*stage.split(), PYTHONWARNINGS="always::ResourceWarning")
    assert done.stderr == ""
