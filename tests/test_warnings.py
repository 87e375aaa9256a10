"""The stages print nothing on stderr: no warnings, also none about files left open."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.extra
STAGES = (
    "evaluate",
    *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("prepare", "train lstm", "report")),
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_prints_nothing_on_stderr(clone, stage):
    done = clone.stage(*stage.split(), PYTHONWARNINGS="always::ResourceWarning")
    assert done.stderr == ""
