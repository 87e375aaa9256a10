"""Does the committed state come out again? `make verify`, or

    python -m tools.verify -S dataset=digits     two fresh clones run: are their files the same?
    python -m tools.verify                       one runs: are its figures the committed ones?

The second is done where the settings (`-S key=value`) change nothing in the committed parameters.
Clones lie in a temporary folder, with a DVC cache each, and have nothing that a run makes: no
figure can come from anywhere but the run. Exit status 1 says that something differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from stages.common.cli import INTERRUPTED, StageError, run
from stages.common.files import read_csv, read_json
from stages.common.overrides import with_overrides
from stages.common.params import model_names, parse_params

# What holds seconds, or quotes them, and so is never the same twice; results.csv in part.
TIMED = (
    "metrics/timing", "plots/figures/cost.png", "plots/report.html", "plots/report.md",
)  # fmt: skip
RESULTS, TIMED_COLUMNS = "metrics/results.csv", (
    "train_seconds", "seconds_per_epoch", "images_per_second",
)  # fmt: skip
WITH_TIMED = (*TIMED, "plots/figures", RESULTS)  # as dvc.lock has them
MACHINE = ("processor", "threads", "versions")  # where these are equal, so are the bytes
STANDARD_ERRORS = 4  # of the difference of two accuracies: elsewhere, figures may differ so much
DIGEST_SHOWN = 12  # hexadecimal digits


class ReproError(StageError):
    """`dvc repro` ended with an error in a clone, which may be mended."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Check that runs repeat, in fresh clones.")
    parser.add_argument("-S", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="of the clones; one that is there goes on")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # each line as it comes, in a log too
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="verify-"))
    try:
        same = verify(folder.resolve(), arguments.settings)
    except (KeyboardInterrupt, ReproError) as error:
        words = [sys.executable, "-m", "tools.verify", *(f"-S {s}" for s in arguments.settings)]
        how = f"`{' '.join(words)} --folder {folder}` goes on from here"
        if isinstance(error, ReproError):
            raise StageError(f"{error}; {how}") from None
        print(f"interrupted; {how}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        with suppress(OSError):  # it is not empty, as a rule
            folder.rmdir()
    if same and not arguments.folder:
        shutil.rmtree(folder)
    elif not same:
        sys.exit(f"the clones are in {folder}")


def verify(folder: Path, settings: list[str]) -> bool:
    """Print the verdict on the committed state; return whether all is as it should be."""
    from tools.review import git

    if git("status", "--porcelain", "--untracked-files=no"):
        print("(the work tree has changes that are not committed: they are not verified)")
    commit = git("rev-parse", "--short", "HEAD").strip()
    committed = yaml.safe_load(git("show", "HEAD:params.yaml"))
    wanted = changed(committed, settings)
    if wanted == committed:
        print(f"{commit} on {wanted['dataset']}: a fresh clone against the committed figures")
        reference, rebuilt = clone(folder / "committed"), clone(folder / "rebuilt", wanted)
        reproduce(rebuilt)
        return against_committed(reference, rebuilt)
    print(f"{commit} on {wanted['dataset']}: two fresh clones against each other")
    first, second = (clone(folder / name, wanted) for name in ("first", "second"))
    reproduce(first)
    reproduce(second)
    return print_files(fingerprints(first), fingerprints(second))


# --- running ------------------------------------------------------------------------------


def changed(document: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Return parameters with `key=value` settings, as `dvc exp run -S` would set them."""
    values = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            values[key] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise StageError(f"-S {setting}: {' '.join(str(error).split())}") from None
    wanted = with_overrides(document, values)
    parse_params(wanted)
    return wanted


def clone(folder: Path, params: dict[str, Any] | None = None) -> Path:
    """Clone HEAD to `folder`, unless it is there; with `params`, ready to run from nothing."""
    from tools.review import git

    head = git("rev-parse", "HEAD")
    if folder.exists():
        there = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        if git("-C", str(folder), "rev-parse", "HEAD") != head or params not in (None, there):
            raise StageError(f"{folder} is of another commit or other settings; remove it")
        return folder
    part = folder.with_name(f".{folder.name}")  # a clone that was cut short is not taken for one
    shutil.rmtree(part, ignore_errors=True)
    git("clone", "--quiet", ".", str(part))
    if params:
        for made in ("metrics", "plots"):
            shutil.rmtree(part / made, ignore_errors=True)
        (part / "dvc.lock").unlink(missing_ok=True)
        if params != yaml.safe_load((part / "params.yaml").read_text(encoding="utf-8")):
            text = yaml.safe_dump(params, sort_keys=False)
            (part / "params.yaml").write_text(text, encoding="utf-8")
    part.rename(folder)
    return folder


def reproduce(folder: Path) -> None:
    """Run the pipeline in a clone; what an earlier, interrupted call has done there is kept."""
    started = time.monotonic()
    begun = (folder / "dvc.lock").exists()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_GLOBAL_CONFIG_DIR": str(folder / ".dvc/none"),  # a cache set there would be shared
        "DVC_SYSTEM_CONFIG_DIR": str(folder / ".dvc/none"),
        "DVC_NO_ANALYTICS": "1",
    }
    log = folder.with_suffix(".log")
    before = log.stat().st_size if log.exists() else 0  # of an earlier call's
    print(f"  {folder.name}: dvc repro (log: {log})")
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "dvc", "repro", *([] if begun else ["--force"])],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_bytes()[before:].decode("utf-8", "replace").splitlines()
        said = [line for line in lines if line.lower().startswith("error: ")]
        said += [*lines, f"status {done.returncode}"]
        raise ReproError(f"dvc repro failed: {said[0].removeprefix('error: ')}")
    print(f"  {folder.name}: {time.monotonic() - started:.0f} s")


# --- comparing ----------------------------------------------------------------------------


def fingerprints(folder: Path, whole: bool = True) -> dict[str, str]:
    """Return a digest of each file that a run made and that must be the same again.

    Parameters
    ----------
    whole
        Digests of the files themselves. Otherwise, what git does not hold (`data/`) is taken from
        dvc.lock: a whole folder as DVC sums it up; figures, which only quote the rest, are left.
    """
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    # DVC lists siblings in the order in which they first ran, which follows Python's hash seed.
    found = {"dvc.lock": digest(json.dumps(without_timed(lock), sort_keys=True).encode())}
    for stage in lock["stages"].values():
        for out in stage.get("outs", []):
            path = folder / out["path"]
            if whole or not out["path"].startswith(("data/", "plots/figures")):
                for file in [path] if path.is_file() else sorted(path.rglob("*")):
                    found[str(file.relative_to(folder))] = digest(content(file, folder))
            elif out["path"].startswith("data/"):
                found[out["path"]] = out["md5"]
    return {name: value for name, value in found.items() if not is_timed(name, TIMED)}


def is_timed(path: str, timed: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in timed)


def without_timed(lock: dict[str, Any]) -> dict[str, Any]:
    """Return dvc.lock without what it says of files that hold or quote timings."""
    return {
        name: {
            key: [entry for entry in value if not is_timed(entry["path"], WITH_TIMED)]
            if key in ("deps", "outs")
            else value
            for key, value in stage.items()
        }
        for name, stage in lock["stages"].items()
    }


def content(file: Path, folder: Path) -> bytes:
    """Return a file's bytes; of the table of results, what is no timing."""
    if file != folder / RESULTS:
        return file.read_bytes()
    kept = [
        {key: value for key, value in row.items() if key not in TIMED_COLUMNS}
        for row in read_csv(file)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(kept[0]))
    writer.writeheader()
    writer.writerows(kept)
    return text.getvalue().encode()


def digest(value: bytes) -> str:
    """Return DVC's kind of digest, so that dvc.lock's and ours compare."""
    return hashlib.md5(value, usedforsecurity=False).hexdigest()


def print_files(one: dict[str, str], other: dict[str, str]) -> bool:
    """Print the verdict on each file; return whether all are the same."""
    width = max(len(name) for name in one | other)
    different = 0
    for name in sorted(one | other):
        a, b = one.get(name), other.get(name)
        different += a != b
        shown = f"{(a or 'missing')[:DIGEST_SHOWN]:{DIGEST_SHOWN}}"
        verdict = "same" if a == b else f"DIFFERENT  {(b or 'missing')[:DIGEST_SHOWN]}"
        print(f"  {name:{width}}  {shown}  {verdict}")
    print(f"  (not compared, for they hold or quote seconds: {', '.join(TIMED)};")
    print(f"  dvc.lock without its entries of these, {RESULTS} without its seconds)")
    print("all the same" if not different else f"{different} of {len(one | other)} DIFFERENT")
    return not different


# --- the committed figures ----------------------------------------------------------------


def against_committed(reference: Path, rebuilt: Path) -> bool:
    """Hold a clone that ran to one that has the committed files, as strictly as may be."""
    unlike = unlike_machine(reference, rebuilt)
    if not unlike:
        print("exactly, for processor, threads and versions are the recorded ones:")
        return print_files(fingerprints(reference, whole=False), fingerprints(rebuilt, whole=False))
    print(f"within a tolerance, for this machine is not the recorded one: {unlike};")
    print(f"(of accuracies {STANDARD_ERRORS} standard errors of their difference; rest exactly)")
    rows = list(tolerant(reference, rebuilt))
    for name, there, here, allowed, kept in rows:
        bounds = f" ± {allowed:.4f}" if allowed else ""
        print(f"  {name:34}  {there}{bounds}  here {here}  {'same' if kept else 'DIFFERENT'}")
    different = sum(not row[-1] for row in rows)
    print("all within" if not different else f"{different} of {len(rows)} DIFFERENT")
    return not different


def unlike_machine(reference: Path, rebuilt: Path) -> str:
    """Say what of the machine differs between two runs, "" if nothing does."""
    for model in model_names():
        there, here = (
            read_json(folder / f"metrics/timing/{model}.json") for folder in (reference, rebuilt)
        )
        for fact in MACHINE:
            if there[fact] != here[fact]:
                return f"{fact} of {model} {there[fact]}, here {here[fact]}"
    return ""


def tolerant(
    reference: Path, rebuilt: Path
) -> Iterator[tuple[str, float | str, float | str, float, bool]]:
    """Yield name, committed and new value, tolerance and verdict of what may be held to one."""
    images = read_json(rebuilt / "data/prepared/manifest.json")["splits"]
    there, here = (fingerprints(folder, whole=False) for folder in (reference, rebuilt))
    data = "data/prepared"
    yield data, there[data][:DIGEST_SHOWN], here[data][:DIGEST_SHOWN], 0, there[data] == here[data]
    for model in model_names():
        there, here = (
            read_json(folder / f"metrics/train/{model}.json") for folder in (reference, rebuilt)
        )
        for count in ("epochs", "parameters"):
            yield f"{model} {count}", there[count], here[count], 0, there[count] == here[count]
        yield accuracy(f"{model} validation accuracy", there["val"], here["val"], images["val"])
    there, here = (read_json(folder / "metrics/evaluation.json") for folder in (reference, rebuilt))
    for model in there:
        yield accuracy(f"{model} test accuracy", there[model], here[model], images["test"])


def accuracy(
    name: str, there: dict[str, float], here: dict[str, float], part: dict[str, Any]
) -> tuple[str, float | str, float | str, float, bool]:
    """Compare two accuracies on the images of a part of the data.

    The tolerance is that of independent samples, with two errors added (Agresti & Caffo, 2000),
    so that it is no zero where a model makes none. A model trained elsewhere from the same seed
    is as far off as one of another seed, which is less: both see the same images.
    """
    n = part["images"]
    rate = (there["accuracy"] * n + 1) / (n + 2)
    allowed = STANDARD_ERRORS * math.sqrt(2 * rate * (1 - rate) / (n + 2))
    a, b = there["accuracy"], here["accuracy"]
    return name, f"{a:.4f}", f"{b:.4f}", allowed, abs(a - b) <= allowed


if __name__ == "__main__":
    run(main)
