"""Killed at any moment, a stage that runs again ends in the bytes of one that was never stopped."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
import yaml
from conftest import Project, names

from stages.files import GO_ON, INTERRUPTED
from stages.params import MODELS
from stages.verify import fingerprints

OUTPUTS = {
    "prepare": "data/prepared",
    **{f"train_{name}": f"data/models/{name}.keras" for name in MODELS},
    "evaluate": "data/predictions",
    "report": "plots/figures",
}
LONGEST = (
    4.0  # seconds into a stage that the first kill may come; halved where the stage was faster
)
EPOCH = r"epoch +\d+/"  # in the line that tells of each
LAST_EPOCH = re.compile(r"epoch +(\d+)/\1\b")
WITHIN_EPOCH = 0.1  # seconds after an epoch's line
TRIES = 12  # that no stage outruns
LOADING = 50e6  # bytes of a stage that has begun to load its libraries


class Killed:
    """`dvc repro` of one stage, in a copy of a pipeline that ran; killed, and run again."""

    def __init__(self, project: Project, stage: str):
        self.project, self.stage = project, stage
        seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
        print(f"KILL_SEED={seed} repeats these moments")
        self.random = np.random.default_rng(seed)
        self.longest = LONGEST
        self.output = ""  # of the last run

    def start_anew(self) -> None:
        """Remove what the stage made, and what DVC's cache would answer in its place."""
        out = self.project.path(OUTPUTS[self.stage])
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        cache = self.project.path(".dvc/cache")
        shutil.rmtree(cache / "runs", ignore_errors=True)
        lock = yaml.safe_load(self.project.read("dvc.lock"))["stages"][self.stage]
        md5 = next(out["md5"] for out in lock["outs"] if out["path"] == OUTPUTS[self.stage])
        (cache / "files/md5" / md5[:2] / md5[2:]).unlink(missing_ok=True)

    def kill(self, *, group: bool, after_epoch: bool) -> None:
        """Kill DVC with all that it started (or the stage alone) while the stage runs."""
        for _ in range(TRIES):
            if self._kill(group=group, after_epoch=after_epoch):
                return
            self.longest /= 2
            self.start_anew()
        pytest.fail(f"{self.stage} was never met running\n{self.output}")

    def _kill(self, *, group: bool, after_epoch: bool) -> bool:
        left = self.checkpoints()
        running = subprocess.Popen(
            ["dvc", "repro"], cwd=self.project.folder, env=self.project.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        pattern = EPOCH if after_epoch else f"Running stage '{self.stage}'"
        longest = WITHIN_EPOCH if after_epoch else self.longest
        lines = int(self.random.integers(1, 3)) if after_epoch else 1
        self.output = ""
        with running:
            for line in running.stdout:
                self.output += line
                lines -= bool(re.search(pattern, line))
                if not lines:
                    break
            time.sleep(self.random.uniform(0, longest))
            met = self._strike(running, group=group)
            self.output += running.stdout.read()
        self.said_whether_it_continued(left)
        print(
            f"{self.stage}: {'killed' if met else 'missed'}, {'all' if group else 'stage'}, "
            f"{'after an epoch' if after_epoch else 'any time'}, {self.checkpoints()}"
        )
        # after the last epoch it may have been past its checkpoint's use
        over = after_epoch and LAST_EPOCH.search(self.output) and not self.checkpoints()
        return met and not over

    def met(self, running: subprocess.Popen) -> list[psutil.Process]:
        """Return the stage's process below DVC's, if it is there."""
        module = f"stages.{self.stage.partition('_')[0]}"
        try:
            below = psutil.Process(running.pid).children(recursive=True)
            return [process for process in below if module in process.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def has_loaded(self, running: subprocess.Popen) -> bool:
        """Return whether the stage is there and has its libraries."""
        with suppress(psutil.NoSuchProcess):  # it ends just now
            return any(found.memory_info().rss > LOADING for found in self.met(running))
        return False

    def _strike(self, running: subprocess.Popen, *, group: bool) -> bool:
        """Send SIGKILL; return whether the stage was there to receive it."""
        found = self.met(running)
        if group and found:
            os.killpg(running.pid, signal.SIGKILL)
        elif found:
            found[0].kill()
        return bool(found)

    def checkpoints(self) -> list[str]:
        folder = self.project.path("data/checkpoints")
        return [name for name in names(folder) if name[0] != "."] if folder.exists() else []

    def said_whether_it_continued(self, left: list[str]) -> None:
        """A checkpoint that was left is used; nothing else is."""
        if re.search(EPOCH, self.output):
            assert ("continuing after epoch" in self.output) == bool(left), self.output

    def finish(self) -> None:
        """Run to the end."""
        left = self.checkpoints()
        self.output = self.project.dvc("repro")
        self.said_whether_it_continued(left)

    def assert_same(self, untouched: Project) -> None:
        assert fingerprints(self.project.folder) == fingerprints(untouched.folder)
        assert self.checkpoints() == []
        new = self.project.run("git", "ls-files", "--others", "--exclude-standard").stdout
        assert new == "", "half-written files are left where git, or DVC, takes them for outputs"
        assert "up to date" in self.project.dvc("repro")


@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_killed_stage_runs_again_to_the_same_bytes(pipeline, clone, stage):
    """One kill each; of a training after some epoch, so that there is something to go on from."""
    killed = Killed(clone, stage)
    killed.start_anew()
    training = stage.startswith("train")
    killed.kill(group=stage not in ("train_lstm", "evaluate"), after_epoch=training)
    killed.finish()
    assert f"Running stage '{stage}'" in killed.output
    assert ("continuing after epoch" in killed.output) == training
    killed.assert_same(pipeline)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_stage_killed_again_and_again_ends_in_the_same_bytes(pipeline, clone, stage, round_):
    """Three kills in a row, at any moment: 54 in all."""
    killed = Killed(clone, stage)
    killed.start_anew()
    for i in range(3):
        after_epoch = stage.startswith("train") and killed.random.random() < 0.5
        killed.kill(group=(i + round_) % 2 == 0, after_epoch=after_epoch)
    killed.finish()
    killed.assert_same(pipeline)


# --- Ctrl-C -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "pattern"), [("train_cnn", r"epoch +2/"), ("evaluate", "Running stage")]
)
def test_ctrl_c_in_dvc_repro_ends_in_a_line_and_the_same_command_goes_on(
    pipeline, clone, stage, pattern
):
    killed = Killed(clone, stage)
    for _ in range(TRIES):
        killed.start_anew()
        running = subprocess.Popen(
            ["dvc", "repro"], cwd=clone.folder, env=clone.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        with running:
            output = next(line for line in running.stdout if re.search(pattern, line))
            # the line may be DVC's, before it starts the stage
            while running.poll() is None and not killed.has_loaded(running):
                time.sleep(0.01)
            if met := running.poll() is None:
                os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all of them
            output += running.stdout.read()
        if met:
            break
    assert met, "the stage was never met running"
    assert running.returncode > 0
    assert output.count(GO_ON) == 1, output
    assert "Traceback" not in output
    # bash hands the stage's own status on; dash, which DVC takes without $SHELL, dies of the signal
    assert re.search(rf"exited with ({INTERRUPTED}|-{signal.SIGINT:d})\b", output), output
    killed.finish()
    killed.assert_same(pipeline)


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.6])
def test_ctrl_c_while_libraries_load_ends_in_a_line_too(project, delay):
    script = (
        "import os, runpy, signal, sys, threading, time\n"
        "sys.argv = ['-m']  # what `python -m` has there while it imports the package\n"
        "import stages\n"
        f"threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "runpy.run_module('stages.prepare', run_name='__main__', alter_sys=True)\n"
        "time.sleep(5)\n"
    )
    done = project.run(sys.executable, "-c", script, status=INTERRUPTED)
    assert done.stderr == f"{GO_ON}\n"


LIBRARIES = {  # what libraries do to a Ctrl-C that comes while they are imported
    "takes it for a missing dependency": """
        try:
            press()
        except BaseException:
            optional = None
    """,
    "makes it an error of its own": """
        try:
            press()
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error
    """,
    "loses it in a callback": """
        import weakref
        kept = type("Kept", (), {})()
        reference = weakref.ref(kept, lambda _: press())
        del kept
    """,
}
STAGE = """
import os, signal, time
from stages.files import run

def press():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)

def main():
    try:
        {}
    finally:
        print("cleared up")

{}
if __name__ == "__main__":
    run(main)
print("went on")
"""


@pytest.mark.parametrize("where", ["as the stage begins", "within main"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_ctrl_c_is_not_lost_in_an_import(project, library, where):
    text = f"from __main__ import press\n{textwrap.dedent(LIBRARIES[library])}"
    project.path("library.py").write_text(text)
    at_once, later = ("import library", "pass") if "begins" in where else ("", "import library")
    project.path("stages/loads.py").write_text(STAGE.format(later, at_once))
    done = project.stage("loads", status=INTERRUPTED)
    assert (done.stdout, done.stderr) == ("", f"{GO_ON}\n")


def test_ctrl_c_in_a_stages_own_work_lets_it_clear_up(project):
    project.path("stages/loads.py").write_text(STAGE.format("press()", ""))
    done = project.stage("loads", status=INTERRUPTED)
    assert (done.stdout, done.stderr) == ("cleared up\n", f"{GO_ON}\n")


def test_whoever_imports_the_code_keeps_their_own_ctrl_c(project):
    script = (
        "import signal, stages, stages.files\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    project.run(sys.executable, "-c", script)


def test_what_killed_processes_left_half_written_goes(clone):
    """A stage that is killed while it writes leaves a file beside the one that it would replace,
    in a folder that DVC sums up; the next run removes it, but not one that a process still holds.
    """
    from stages.files import holding

    left = clone.path("data/models/.cnn-a1b2c3d4.keras")
    held = clone.path("data/models/.cnn-a1b2c3d5.keras")
    users = clone.path("data/models/.cnn-backup.keras")
    for path in (left, held, users):
        path.write_bytes(b"half")
    clone.path("data/.prepared-a1b2c3d4/prepared").mkdir(parents=True)
    with holding(held):
        clone.stage("train", "cnn")
    clone.stage("prepare")
    assert names(held.parent) == sorted(
        [held.name, users.name, *(f"{name}.keras" for name in MODELS)]
    )
    assert ".prepared-a1b2c3d4" not in names(clone.path("data"))
