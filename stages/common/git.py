"""Run git in the current folder."""

from __future__ import annotations

import subprocess

from stages.common.cli import StageError, one_line

NO_REPOSITORY = (
    "this folder is not in a git repository, and this command compares commits; download the "
    "project with `git clone`, or type `git init && git add --all && git commit -m start`"
)


class GitError(StageError):
    """git is missing, the folder is not in a repository, or a command failed."""


def git(*arguments: str) -> str:
    """Return the output of a git command.

    Raises
    ------
    GitError
        git is not installed, this folder is not in a repository, or the command fails.
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- no shell
    except FileNotFoundError:
        raise GitError("git is not installed; install it, then run this command again") from None
    if "not a git repository" in done.stderr:
        raise GitError(NO_REPOSITORY)
    if done.returncode:
        complaint = one_line(done.stderr) if done.stderr.strip() else "no output"
        raise GitError(f"git {' '.join(arguments)}: {complaint}")
    return done.stdout


def commit() -> str:
    """Return the commit of the code: `1b85474`, `1b85474 with changes`, or "" if it is unknown."""
    try:
        head = git("rev-parse", "--short=7", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/stages")
    except GitError:
        return ""
    return f"{head} with changes" if changed else head
