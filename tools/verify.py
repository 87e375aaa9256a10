"""Check that fresh clones of the last commit reproduce its results.

    python -m tools.verify                      run one clone; compare it with the committed results
    python -m tools.verify -S dataset=digits    run two clones; compare the second with the first

There are no committed results for other settings than the committed parameters. Then two clones
run with these settings, and both must give the same results. Each clone has its own DVC cache and
starts without results, so it trains everything itself. Exits with status 1 if a result differs.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stages.common.cli import INTERRUPTED, StageError, run
from stages.common.files import read_csv, read_json
from stages.common.git import git
from stages.common.overrides import parse_overrides, with_overrides
from stages.common.params import PARAMS_FILE, parse_params, parse_yaml, read_yaml

# Outputs that quote seconds or a commit, so they differ between runs; results.csv only in part.
TIMED = (
    "data/timing",
    "plots/figures",
    "plots/report.html",
    "plots/report.md",
    "plots/MODEL_CARD.md",
)
RESULTS = "metrics/results.csv"
TIMED_COLUMNS = ("train_seconds", "seconds_per_epoch", "images_per_second")
# Columns of results.csv that say where a training ran. Where they are equal, so are all bytes.
# The processor's name is not among them: one name can stand for several sets of instructions.
MACHINE = ("probe", "threads", "python", "keras", "tensorflow", "numpy")
STANDARD_ERRORS = 4  # allowed difference of two accuracies on different machines


class ReproError(StageError):
    """`dvc repro` failed in a clone. After a fix, the same clone can continue."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Check that fresh clones reproduce the results.")
    parser.add_argument("-S", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="folder of the clones; existing ones continue")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # show each line at once, also in a log
    committed = parse_yaml(git("show", f"HEAD:./{PARAMS_FILE}").encode(), PARAMS_FILE)
    wanted = changed(committed, arguments.settings)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="verify-"))).resolve()
    try:
        same = verify(folder, wanted, two_runs=wanted != committed)
    except (KeyboardInterrupt, ReproError) as error:
        settings = [word for setting in arguments.settings for word in ("-S", setting)]
        words = [sys.executable, "-m", "tools.verify", *settings, "--folder", str(folder)]
        resume = f"to continue, type: {shlex.join(words)}"
        if isinstance(error, ReproError):
            raise StageError(f"{error}; {resume}") from None
        print(f"interrupted; {resume}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if not same:
        sys.exit(f"some results differ; to look at them, see the clones in {folder}")
    if not arguments.folder:
        shutil.rmtree(folder)


def verify(folder: Path, params: dict[str, Any], *, two_runs: bool) -> bool:
    """Run clones in `folder` and print the comparison. Return whether the results agree."""
    if git("status", "--porcelain", "--untracked-files=no"):
        print("Uncommitted changes are not verified.")
    commit = f"{git('rev-parse', '--short', 'HEAD').strip()} on {params['dataset']}"
    if two_runs:
        print(f"{commit}: running two fresh clones; both must give the same results")
        first, second = (clone(folder / name, params) for name in ("first", "second"))
        reproduce(first)
        reproduce(second)
        return print_files(fingerprints(first), fingerprints(second))
    print(f"{commit}: running a fresh clone; it must give the committed results")
    committed, rebuilt = clone(folder / "committed"), clone(folder / "rebuilt", params)
    read_csv(committed / RESULTS)  # before hours of training: is there something to compare with?
    reproduce(rebuilt)
    return against_committed(committed, rebuilt)


# --- running ------------------------------------------------------------------------------


def changed(document: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Return parameters with `key=value` settings, as `dvc exp run -S` would set them."""
    wanted = with_overrides(document, parse_overrides(settings))
    parse_params(wanted)
    return wanted


def clone(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """Clone the last commit into `folder`, and return the project's folder in it.

    With `params`, remove the results and write these parameters: the clone is ready to run. An
    existing clone is used as it is; StageError if its commit or parameters are other ones.
    """
    top, prefix, head = git("rev-parse", "--show-toplevel", "--show-prefix", "HEAD").split("\n")[:3]
    if folder.exists():
        same_commit = git("-C", str(folder), "rev-parse", "HEAD").strip() == head
        if not same_commit or params not in (None, read_yaml(folder / prefix / PARAMS_FILE)):
            raise StageError(
                f"{folder} holds a run of another commit or with other settings; delete this folder"
            )
        return folder / prefix
    part = folder.with_name(f".{folder.name}")  # renamed when it is complete
    shutil.rmtree(part, ignore_errors=True)
    git("clone", "--quiet", top, str(part))
    project = part / prefix
    if params:
        for results in ("metrics", "plots"):
            shutil.rmtree(project / results, ignore_errors=True)
        (project / "dvc.lock").unlink(missing_ok=True)
        if params != read_yaml(project / PARAMS_FILE):
            text = yaml.safe_dump(params, sort_keys=False)
            (project / PARAMS_FILE).write_text(text, encoding="utf-8")
    part.rename(folder)
    return folder / prefix


def reproduce(folder: Path) -> None:
    """Run `dvc repro` in a clone. Stages that an interrupted call finished are kept."""
    started = time.monotonic()
    force = [] if (folder / "dvc.lock").exists() else ["--force"]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / ".dvc/none"),  # a cache set there would be shared
        "DVC_SYSTEM_CONFIG_DIR": str(folder / ".dvc/none"),
        "DVC_NO_ANALYTICS": "1",
    }
    log = folder.with_suffix(".log")
    print(f"  {folder.name}: dvc repro (log: {log})")
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "dvc", "repro", *force],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.lower().startswith("error: ")]
        reason = [*errors, *lines, f"status {done.returncode}"][0].removeprefix("error: ")
        raise ReproError(f"dvc repro failed: {reason}")
    print(f"  {folder.name}: {time.monotonic() - started:.0f} s")


# --- comparing ----------------------------------------------------------------------------


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the MD5 of each output that must be the same in every run.

    Files in git are read. The digests of `data/` are those that DVC put into dvc.lock.
    """
    found = {}
    stages = read_yaml(folder / "dvc.lock")["stages"].values()
    for name, md5 in ((out["path"], out["md5"]) for stage in stages for out in stage["outs"]):
        if any(Path(name).is_relative_to(timed) for timed in TIMED):
            continue
        if name.startswith("data/"):
            found[name] = md5
        else:
            path = folder / name
            for file in [path] if path.is_file() else sorted(path.rglob("*")):
                content = untimed_results(file) if name == RESULTS else file.read_bytes()
                key = file.relative_to(folder).as_posix()
                found[key] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return found


def untimed_results(path: Path) -> bytes:
    """Return the content of results.csv without the columns of seconds."""
    rows = [
        {key: value for key, value in row.items() if key not in TIMED_COLUMNS}
        for row in read_csv(path)
    ]
    return repr(rows).encode()


def print_files(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Print one line per output. Return whether all are the same."""
    names = sorted(one | other)
    different = [name for name in names if one.get(name) != other.get(name)]
    for name in names:
        print(f"  {'DIFFERENT' if name in different else 'same':9}  {name}")
    print(f"  (Not compared, because they quote seconds or a commit: {', '.join(TIMED)}, and the")
    print(f"  columns {', '.join(TIMED_COLUMNS)} of {RESULTS}.)")
    print(f"{len(different)} of {len(names)} DIFFERENT" if different else "all the same")
    return not different


def against_committed(committed: Path, rebuilt: Path) -> bool:
    """Print a comparison of committed and rebuilt results. Return whether they agree.

    They must be equal on the recorded kind of machine. On others, accuracies have a tolerance.
    """
    reason = machine_difference(committed, rebuilt)
    if not reason:
        print("Rounding, threads and versions are the recorded ones: all files must be equal.")
        return print_files(fingerprints(committed), fingerprints(rebuilt))
    print(
        f"This machine differs from the recorded one ({reason}). Accuracies may differ by up to "
        f"{STANDARD_ERRORS} standard errors; data, epochs and parameter counts must be equal."
    )
    rows = list(tolerant(committed, rebuilt))
    for same, text in rows:
        print(f"  {'same' if same else 'DIFFERENT':9}  {text}")
    different = sum(not same for same, _ in rows)
    print(f"{different} of {len(rows)} values DIFFERENT" if different else "all values agree")
    return not different


def machine_difference(committed: Path, rebuilt: Path) -> str:
    """Return how this machine differs from the recorded one; "" if it does not."""
    for recorded, here in zip(*(read_csv(f / RESULTS) for f in (committed, rebuilt)), strict=True):
        for fact in MACHINE:
            if recorded[fact] != here[fact]:
                return f"{fact} of {here['model']} {recorded[fact]}, here {here[fact]}"
    return ""


def tolerant(committed: Path, rebuilt: Path) -> Iterator[tuple[bool, str]]:
    """Yield whether each result agrees, and a text with both values."""
    sides = (committed, rebuilt)
    images = {
        part: split["images"]
        for part, split in read_json(rebuilt / "data/prepared/manifest.json")["splits"].items()
    }
    yield equal("data/prepared", *(fingerprints(side)["data/prepared"] for side in sides))
    for pair in zip(*(read_csv(side / RESULTS) for side in sides), strict=True):
        model = pair[1]["model"]
        for count in ("model", "epochs", "parameters"):
            yield equal(f"{model} {count}", *(row[count] for row in pair))
        for part in ("val", "test"):
            accuracies = [float(row[f"{part}_accuracy"] or "nan") for row in pair]
            if not any(map(math.isnan, accuracies)):  # the ensemble has no validation accuracy
                yield close(f"{model} {part} accuracy", *accuracies, images[part])


def equal(name: str, recorded: Any, here: Any) -> tuple[bool, str]:
    """Compare two values that must be equal."""
    return recorded == here, f"{name}: {recorded}, here {here}"


def close(name: str, recorded: float, here: float, images: int) -> tuple[bool, str]:
    """Compare two accuracies on `images` images.

    The tolerance is `STANDARD_ERRORS` standard errors of the difference of independent samples,
    with two errors added (Agresti & Caffo, 2000), so it is never 0. It is conservative: both runs
    are scored on the same images.
    """
    rate = (recorded * images + 1) / (images + 2)
    allowed = STANDARD_ERRORS * math.sqrt(2 * rate * (1 - rate) / (images + 2))
    text = f"{name}: {recorded:.2%} ± {allowed:.2%}, here {here:.2%}"
    return abs(here - recorded) <= allowed, text


if __name__ == "__main__":
    run(main)
