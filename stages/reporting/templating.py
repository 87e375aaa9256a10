"""Fill in the project's Jinja templates."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.reporting.sentences import in_percent, p_text, percent, points

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (TEMPLATES / "page.js").read_text(encoding="utf-8")  # of every page
SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|&~!]")  # characters with a meaning in Markdown
NO_BREAK = re.compile(r" (?=[=<≤≥±%])|(?<=[=<≤≥±]) ")  # the spaces in "p < 0.001", "99.49 %"


def unbroken(text: str) -> str:
    """Replace the spaces around relations and before percent signs by no-break spaces."""
    return NO_BREAK.sub("\u00a0", text)


def in_markdown(text: str) -> Markup:
    """Return a text from users, such as a class name, so that Markdown shows it as it is."""
    escaped = SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
    return Markup(escaped)  # noqa: S704  escaped


FILTERS = {
    each.__name__: each for each in (in_markdown, in_percent, p_text, percent, points, unbroken)
}


def render(template: Path, facts: Mapping[str, Any], **filters: Any) -> str:
    """Fill in a template file. Everything except our own markup is escaped as HTML.

    A template can include files of its own folder and of `stages/reporting/templates`, and use
    `FILTERS` and the given filters. A missing value raises jinja2.UndefinedError.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= FILTERS | filters
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    script = Markup(SCRIPT)  # noqa: S704  our own file
    environment.globals |= {"script_text": script, "script_hash": f"sha256-{digest}"}
    return environment.get_template(template.name).render(facts)
