"""Fill in the project's Jinja templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.reporting.sentences import p_text

TEMPLATES = Path(__file__).parent / "templates"


def render(template: Path, facts: Mapping[str, Any], **filters: Any) -> str:
    """Fill in a template file. Everything that is not our own markup is escaped as HTML.

    A template can include the files in its own folder and in `stages/reporting/templates`.
    A missing value raises jinja2.UndefinedError.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"p_text": p_text} | filters
    return environment.get_template(template.name).render(facts)
