"""Digests of what determines a result: values, and code without what only people read."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STAGES = Path(__file__).parent
# The trials in studies/trials name their code by the digest of Python 3.11's `ast.unparse`, whose
# text later versions write differently; this is the same code's digest as it is now.
RECORDED_AS = {
    "179fc2eebcba8be2e2cc18469789e4bda0f7a00c3c1e1dee2416eefd50794779":
    "8deaa17f0ed25921a587094026904a500343d2536cf3a7f09bb799de5b6ef74a",
}  # fmt: skip


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON: equal mappings, equal digests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(modules: Iterable[str], folder: Path = STAGES) -> str:
    """Return the digest of modules of `stages/`, by name: of what they do, not of their layout.

    Comments, docstrings and line breaks are left out, so that mending a sentence does not throw
    away what has been computed. Every version of Python gives the same.
    """
    digest = json_digest({
        name: _digest_of((folder / f"{name}.py").read_text(encoding="utf-8")) for name in modules
    })  # fmt: skip
    return RECORDED_AS.get(digest, digest)


@functools.cache  # a study of thousands of trials asks for each
def _digest_of(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty texts to some f-strings
            node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    return json_digest(_plain(tree))


def _plain(node: Any) -> Any:
    """Return a syntax tree as lists and mappings, less empty fields: each version adds some."""
    if isinstance(node, ast.AST):
        fields = {name: _plain(value) for name, value in ast.iter_fields(node) if value is not None}
        return {type(node).__name__: {key: value for key, value in fields.items() if value != []}}
    return [_plain(part) for part in node] if isinstance(node, list) else repr(node)
