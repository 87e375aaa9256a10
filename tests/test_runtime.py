"""The backend: threads, how batches reach it, and its import."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from stages.common.arrays import Arrays
from stages.common.cli import AGAIN, INTERRUPTED
from stages.training.runtime import OPTIONAL, Threads
from stages.training.session import threads_for


@pytest.mark.parametrize(
    ("name", "changes", "images", "expected"),
    [
        ("lstm", {}, 54_000, Threads(intra_op=1, inter_op=4, batch_parts=4)),
        ("lstm", {"train.batch_size": 128}, 54_000, Threads(2, 4, 2)),
        ("lstm", {"train.batch_size": 64}, 54_000, Threads(4, 4, 1)),
        ("lstm", {"train.threads": 1}, 54_000, Threads(1, 1, 2)),
        ("cnn", {"cnn.batch_norm": True}, 54_000, Threads(2, 4, 2)),
        ("cnn", {"cnn.batch_norm": False}, 54_000, Threads(1, 4, 4)),
        # the last batch has 3 images for 4 parts; it is a whole batch; it is smaller than a batch
        ("lstm", {}, 256 * 5 + 3, Threads(4, 4, 1)),
        ("lstm", {}, 256 * 5, Threads(1, 4, 4)),
        ("lstm", {}, 3, Threads(4, 4, 1)),
    ],
)
def test_threads_and_parts_fit_the_model_and_the_batches(
    make_params, name, changes, images, expected
):
    params = make_params({"train.threads": 4, "train.batch_size": 256} | changes)
    assert threads_for(params.train, params.models[name], images) == expected


@pytest.mark.usefixtures("backend")
def test_batches_reach_the_backend_complete_in_order_and_without_autotuning():
    from stages.training.batches import InOrder
    from stages.training.runtime import feed

    images, labels = np.arange(6 * 9, dtype=np.uint8).reshape(6, 3, 3, 1), np.arange(6)
    fed = feed(InOrder(Arrays(images, labels), batch_size=4))
    assert fed.options().autotune.enabled is False
    assert int(fed.cardinality()) == 2
    batches = [(inputs["image"].numpy(), y.numpy()) for inputs, y in fed]
    assert [len(y) for _, y in batches] == [4, 2]
    assert np.array_equal(np.concatenate([x for x, _ in batches]), images)
    assert np.array_equal(np.concatenate([y for _, y in batches]), labels)


def configure(path: Path, after: str = "") -> subprocess.CompletedProcess[str]:
    """Call `configure` in a new process, whose `keras` comes from a folder if there is one."""
    script = f"""
import sys
sys.orig_argv = ["python", "-m", "tools.predict"]  # as if started so
sys.path[:0] = [{str(path)!r}, {str(ROOT)!r}]
import stages
from stages.training.runtime import Threads, configure
configure(Threads(1, 1, 1), seed=1)
{after}
"""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_only_notices_of_the_import_are_dropped(tmp_path):
    lines = (
        "I0000 00:00 port.cc] oneDNN is on\nWARNING: All log messages before absl::InitializeLog"
    )
    text = f"import os\nos.write(2, {lines!r}.encode() + b'\\nnot a notice\\n')\nraise SystemExit\n"
    (tmp_path / "keras.py").write_text(text, encoding="utf-8")
    assert configure(tmp_path).stderr == "not a notice\n"


def test_the_import_is_silent_and_skips_what_models_do_not_need(tmp_path):
    done = configure(tmp_path, f"""
assert "keras" in sys.modules and not sys.modules.keys() & {{*{OPTIONAL}}}
import matplotlib
""")  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("accident", "status", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", INTERRUPTED, f"{AGAIN}\n"),
        ("os.abort()", -signal.SIGABRT, "Fatal Python error: Aborted"),
        ("os.write(2, b'F0000 no memory\\n'); os.abort()", -signal.SIGABRT, "F0000 no memory\n"),
        ("raise ImportError('libstdc++ is missing')", 1, "ImportError: libstdc++ is missing"),
    ],
)
def test_ctrl_c_and_errors_during_the_import_are_reported(tmp_path, accident, status, said):
    (tmp_path / "keras.py").write_text(f"import os, signal, time\n{accident}\ntime.sleep(5)\n")
    done = configure(tmp_path)
    assert done.returncode == status
    assert said in done.stderr
