"""Digests of what determines a result: values, and code without what only people read."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STAGES = Path(__file__).parent


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON: equal mappings, equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(modules: Iterable[str], folder: Path = STAGES) -> str:
    """Return the digest of modules of `stages/`, by name: of what they do, not of their layout.

    Comments, docstrings and line breaks are left out, so that mending a sentence does not throw
    away what has been computed.
    """
    return json_digest({
        name: _without_docstrings((folder / f"{name}.py").read_text(encoding="utf-8"))
        for name in modules
    })  # fmt: skip


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
