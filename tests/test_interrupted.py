"""A stage that is killed at any moment and runs again gives the bytes of an undisturbed run."""

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

from stages.common.cli import INTERRUPTED, RESUME
from stages.common.params import model_names
from tools.verify import fingerprints

OUTPUTS = {
    "prepare": "data/prepared",
    **{f"train_{name}": f"data/models/{name}.keras" for name in model_names()},
    "evaluate": "data/predictions",
    "report": "plots/figures",
}
LONGEST = 4.0  # seconds until the first kill, at most; halved after each stage that was faster
EPOCH = r"epoch +\d+/"  # in the line printed after each epoch
LAST_EPOCH = re.compile(r"epoch +(\d+)/\1\b")
WITHIN_EPOCH = 0.1  # seconds after an epoch's line
TRIES = 12  # enough to hit even the fastest stage


class Interrupted:
    """`dvc repro` of one stage in a copy of the pipeline: interrupt it, and run it again."""

    def __init__(self, project: Project, stage: str):
        self.project, self.stage = project, stage
        seed = int(os.environ.get("KILL_SEED") or secrets.randbits(32))
        print(f"KILL_SEED={seed} repeats these moments")
        self.random = np.random.default_rng(seed)
        self.longest = LONGEST
        self.output = ""  # of the last run

    def start_anew(self) -> None:
        """Remove the stage's output, and everything in DVC's cache that could restore it."""
        name = OUTPUTS[self.stage]
        out, cache = self.project.path(name), self.project.path(".dvc/cache")
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        shutil.rmtree(cache / "runs", ignore_errors=True)
        lock = yaml.safe_load(self.project.read("dvc.lock"))["stages"][self.stage]
        md5 = next(out["md5"] for out in lock["outs"] if out["path"] == name)
        (cache / "files/md5" / md5[:2] / md5[2:]).unlink(missing_ok=True)

    def process(self, running: subprocess.Popen) -> psutil.Process | None:
        """Return the stage's own process, if it runs."""
        module = f"stages.{self.stage.partition('_')[0]}"
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(running.pid).children(recursive=True):
                if module in process.cmdline():
                    return process
        return None

    def stop(self, *, group: bool, after_epoch: bool, by: int = signal.SIGKILL) -> None:
        """Stop DVC with all its children (`group`), or the stage alone, while the stage runs."""
        for _ in range(TRIES):
            if self._stop(group, after_epoch, by):
                return
            self.longest /= 2
            self.start_anew()
        pytest.fail(f"{self.stage} always ended before it could be stopped\n{self.output}")

    def _stop(self, group: bool, after_epoch: bool, by: int) -> bool:
        left = self.checkpoints()
        pattern = EPOCH if after_epoch else f"Running stage '{self.stage}'"
        lines = int(self.random.integers(1, 3)) if after_epoch else 1
        self.output = ""
        running = subprocess.Popen(
            ["dvc", "repro"], cwd=self.project.folder, env=self.project.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        with running:
            for line in running.stdout:
                self.output += line
                lines -= bool(re.search(pattern, line))
                if not lines:
                    break
            time.sleep(self.random.uniform(0, WITHIN_EPOCH if after_epoch else self.longest))
            if process := self.process(running):
                os.killpg(running.pid, by) if group else process.send_signal(by)
            self.output += running.stdout.read()
        self.check_resumed(left)
        # After the last epoch, the training may have removed its checkpoint already.
        over = after_epoch and LAST_EPOCH.search(self.output) and not self.checkpoints()
        return bool(process) and not over

    def checkpoints(self) -> list[str]:
        folder = self.project.path("data/checkpoints")
        return [name for name in names(folder) if name[0] != "."] if folder.exists() else []

    def check_resumed(self, left: list[str]) -> None:
        """A training continues exactly if a checkpoint was left."""
        if re.search(EPOCH, self.output):
            assert ("continuing after epoch" in self.output) == bool(left), self.output

    def finish(self) -> None:
        """Run to the end."""
        left = self.checkpoints()
        self.output = self.project.dvc("repro")
        self.check_resumed(left)

    def assert_same(self, undisturbed: Project) -> None:
        assert fingerprints(self.project.folder) == fingerprints(undisturbed.folder)
        assert self.checkpoints() == []
        new = self.project.run("git", "ls-files", "--others", "--exclude-standard").stdout
        assert new == "", "no incomplete file is left where git or DVC would see it"
        assert "up to date" in self.project.dvc("repro")


# The other stages are killed at night.
KILLED = {"train_cnn": [], "train_lstm": pytest.mark.extra}


@pytest.mark.parametrize(
    "stage",
    [pytest.param(stage, marks=KILLED.get(stage, pytest.mark.slow)) for stage in OUTPUTS],
)  # fmt: skip
def test_a_killed_stage_runs_again_to_the_same_bytes(pipeline, clone, stage):
    """One kill each; of a training after an epoch, so that it has a checkpoint."""
    killed = Interrupted(clone, stage)
    killed.start_anew()
    training = stage.startswith("train")
    killed.stop(group=stage not in ("train_lstm", "evaluate"), after_epoch=training)
    killed.finish()
    assert f"Running stage '{stage}'" in killed.output
    assert ("continuing after epoch" in killed.output) == training
    killed.assert_same(pipeline)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_stage_killed_again_and_again_ends_in_the_same_bytes(pipeline, clone, stage, round_):
    """Three kills in a row, at any moment: 54 in total."""
    killed = Interrupted(clone, stage)
    killed.start_anew()
    for i in range(3):
        after_epoch = stage.startswith("train") and killed.random.random() < 0.5
        killed.stop(group=(i + round_) % 2 == 0, after_epoch=after_epoch)
    killed.finish()
    killed.assert_same(pipeline)


# --- Ctrl-C -------------------------------------------------------------------------------


@pytest.mark.extra
def test_after_ctrl_c_the_same_command_continues(pipeline, clone):
    stopped = Interrupted(clone, "train_cnn")
    stopped.start_anew()
    stopped.stop(group=True, after_epoch=True, by=signal.SIGINT)  # as a terminal does
    assert stopped.output.count(RESUME) == 1, stopped.output
    assert "Traceback" not in stopped.output
    # bash returns the stage's status; dash, DVC's shell without $SHELL, dies from the signal
    assert re.search(rf"exited with ({INTERRUPTED}|-{signal.SIGINT:d})\b", stopped.output)
    stopped.finish()
    stopped.assert_same(pipeline)


LIBRARIES = {  # what libraries do with a Ctrl-C during their import
    "takes it for a missing dependency": """
        try:
            press()
        except BaseException:
            optional = None
    """,
    "turns it into another error": """
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
from stages.common.watched import run_stage

def press():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)

def main():
    try:
        {}
    finally:
        print("cleaned up")

{}
if __name__ == "__main__":
    run_stage(main)
print("went on")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_ctrl_c_is_not_lost_in_an_import(project, library):
    """Neither in an import at the top of a stage nor in one inside `main`."""
    text = f"from __main__ import press\n{textwrap.dedent(LIBRARIES[library])}"
    project.path("library.py").write_text(text)
    for inside, at_top in (("pass", "import library"), ("import library", "")):
        project.path("stages/loads.py").write_text(STAGE.format(inside, at_top))
        done = project.stage("loads", status=INTERRUPTED)
        assert (done.stdout, done.stderr) == ("", f"{RESUME}\n")


def test_after_ctrl_c_in_its_own_code_a_stage_cleans_up(project):
    project.path("stages/loads.py").write_text(STAGE.format("press()", ""))
    done = project.stage("loads", status=INTERRUPTED)
    assert (done.stdout, done.stderr) == ("cleaned up\n", f"{RESUME}\n")


def test_a_program_that_imports_our_code_keeps_its_own_ctrl_c(project):
    script = (
        "import signal, stages, stages.common.cli\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    project.run(sys.executable, "-c", script)
