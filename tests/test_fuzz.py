"""Input from outside, by the thousand (tests/fuzzing.py says what an input may and may not do).

The fast campaigns are the same every time. The slow ones, 100,000 inputs in all, take their seed
from FUZZ_SEED or draw one, which a failure shows: set it to repeat a campaign.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, names
from fuzzing import MEMORY

SLOW = {
    "fuzz_params.documents": 40_000,
    "fuzz_params.files": 20_000,
    "fuzz_arrays.npz_files": 18_000,
    "fuzz_arrays.idx_files": 12_000,
    "fuzz_models.model_archives": 4_000,
    "fuzz_pictures.pictures": 6_000,
}
FAST = 300
LEFT = {".hypothesis", "input.yaml", "input.npz", "input.gz", "input.keras", "input.png",
        "saved.keras"}  # fmt: skip


def campaign(target: str, examples: int, seed: int, folder: Path) -> dict[str, float]:
    """Run a campaign in an empty folder beside a canary; return what it printed."""
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    (folder / "canary").write_text("sings", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/fuzzing.py"), target, str(examples), str(seed)],
        cwd=work, capture_output=True, text=True, timeout=3600, check=False,
        env=os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(home),
            "KERAS_HOME": str(home / "keras"),
            "OPENBLAS_NUM_THREADS": "1",  # each thread reserves addresses
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr[-30_000:]}"
    assert set(names(work)) <= LEFT, "a file was written beside the input"
    assert names(folder) == ["canary", "home", "work"]
    assert (folder / "canary").read_text(encoding="utf-8") == "sings"
    return json.loads(done.stdout.splitlines()[-1])


def judge(report: dict[str, float], examples: int) -> None:
    assert report["inputs"] >= examples
    assert report["accepted"] > 0, "inputs so strange that none gets past the first check"
    assert report["accepted"] < report["inputs"]
    assert report["peak_bytes"] < MEMORY


@pytest.mark.parametrize("target", SLOW)
def test_a_few_hundred_inputs(target, tmp_path):
    examples = FAST if "models" not in target else FAST // 3
    judge(campaign(target, examples, 0, tmp_path), examples)


@pytest.mark.slow
@pytest.mark.parametrize("target", SLOW)
def test_100_000_inputs(target, tmp_path):
    assert sum(SLOW.values()) == 100_000
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(2**31))
    report = campaign(target, SLOW[target], seed, tmp_path)
    print(target, "seed", seed, report)
    judge(report, SLOW[target])
