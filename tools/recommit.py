"""Update dvc.lock without a run after a change of comments or docstrings only.

    python -m tools.recommit

DVC compares files byte by byte, so a new comment makes stages stale although their results stay the
same. If the code equals that of the commit that recorded dvc.lock, apart from comments, docstrings
and layout, this writes the new digests to dvc.lock and runs nothing. Otherwise it names the files
that differ, and changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.cli import StageError, run
from stages.common.files import write_bytes
from stages.common.git import git
from stages.common.params import read_yaml
from tools.review import extract, stale_stages

LOCK = Path("dvc.lock")


def main() -> None:
    argparse.ArgumentParser(
        description="Update dvc.lock after a change of comments or docstrings only."
    ).parse_args()
    stale = stale_stages()
    if not stale:
        print("dvc.lock records this code and these parameters: nothing to do")
        return
    if git("status", "--porcelain", "--", f"./{LOCK}"):
        raise StageError(f"{LOCK} has changes that are not committed; commit them first")
    commit = git("log", "-1", "--format=%H", "--", f"./{LOCK}").strip()
    lock = read_yaml(LOCK)["stages"]
    deps = sorted({dep["path"] for stage in lock.values() for dep in stage["deps"]})
    code = [path for path in deps if not path.startswith("data/")]
    with tempfile.TemporaryDirectory() as folder:
        extract(commit, code, Path(folder))
        check_recorded(lock, code, Path(folder), commit)
        if changed := list(changed_files(code, Path(folder))):
            raise StageError(
                f"more than comments changed since {commit[:7]} in {', '.join(changed)}; "
                "run `dvc repro`"
            )
    before = LOCK.read_bytes()
    try:
        record(stale, code)
        left = stale_stages()
        if left:
            raise StageError(
                f"parameters or results changed for {', '.join(left)}; run `dvc repro`"
            )
    except BaseException:  # Ctrl-C, too, must not leave half of the digests
        write_bytes(LOCK, before)
        raise
    print(f"recorded without running: {', '.join(stale)}. Commit dvc.lock with the code.")


def check_recorded(lock: dict[str, Any], code: list[str], folder: Path, commit: str) -> None:
    """Raise StageError unless `lock` records the code of `commit`, checked out in `folder`."""
    for name, stage in lock.items():
        for dep in stage["deps"]:
            path = dep["path"]
            if path in code and dep["md5"] != dvc_digest(folder / path):
                raise StageError(
                    f"dvc.lock of {commit[:7]} does not record that commit's {path} for {name}; "
                    "run `dvc repro`"
                )


def dvc_digest(path: Path) -> str:
    """Return the MD5 that DVC records for a file or a folder. "" if it does not exist."""
    if path.is_file():
        return md5(path.read_bytes())
    entries = [
        {"md5": md5(file.read_bytes()), "relpath": file.relative_to(path).as_posix()}
        for file in sorted(files(path), key=lambda file: file.relative_to(path).parts)
    ]
    return f"{md5(json.dumps(entries, sort_keys=True).encode())}.dir" if entries else ""


def md5(content: bytes) -> str:
    """Return the digest that DVC records."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def files(path: Path) -> list[Path]:
    """Return a file, or the files in a folder, without Python's compiled ones."""
    found = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return [each for each in found if "__pycache__" not in each.parts]


def changed_files(code: list[str], folder: Path) -> Iterator[str]:
    """Yield the files under `code` that differ from those in `folder` in more than comments."""
    found = {file.relative_to(folder) for each in code for file in files(folder / each)}
    found |= {file for each in code for file in files(Path(each))}
    for path in sorted(found):
        sides = [path, folder / path]
        if not all(side.exists() for side in sides):
            yield str(path)
            continue
        one, other = (side.read_bytes() for side in sides)
        if one != other and (path.suffix != ".py" or meaning(one) != meaning(other)):
            yield str(path)


def meaning(source: bytes) -> str:
    """Return the syntax tree of Python code as text, without docstrings; or else the code."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return repr(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def record(stages: list[str], code: list[str]) -> None:
    """Write the present digests of `code` to the entries of `stages` in dvc.lock."""
    from dvc.repo import Repo

    with Repo() as repo, repo.lock:
        for stage in repo.index.stages:
            if stage.name not in stages:
                continue
            for dep in stage.deps:
                if dep.def_path in code:
                    dep.save()
            stage.dump(update_pipeline=False)


if __name__ == "__main__":
    run(main)
