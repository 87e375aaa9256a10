"""Fill in the project's Jinja templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.reporting.sentences import in_percent, p_text, percent, points

TEMPLATES = Path(__file__).parent / "templates"
NO_BREAK = re.compile(r" (?=[=<≤≥±%])|(?<=[=<≤≥±]) ")  # the spaces in "p < 0.001", "99.49 %"


def unbroken(text: str) -> str:
    """Replace the spaces around relations and before percent signs by no-break spaces."""
    return NO_BREAK.sub("\u00a0", text)


FILTERS = {each.__name__: each for each in (in_percent, p_text, percent, points, unbroken)}


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
    )
    environment.filters |= FILTERS | filters
    return environment.get_template(template.name).render(facts)
