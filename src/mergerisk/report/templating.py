"""Templates and style shared by every page: escaping is always on."""

from __future__ import annotations

import re
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from mergerisk.report.formatting import budget, count, duration, percent, plural
from mergerisk.report.naming import holder, model_name

SHORT = 24
"""Characters of a name that always fits on a line, also of a phone; the page's script has the same."""


def template(*name: str) -> str:
    """The text of a package file under ``templates``."""
    return resources.files("mergerisk.report").joinpath("templates", *name).read_text(encoding="utf-8")


def page_style() -> Markup:
    """The style sheet of every page."""
    return Markup(
        template("style.css") + template("answers.css") + template("print.css")
    )  # package files, not input


def soft_wrap(name: str) -> Markup:
    """Escape a name and let it break after the marks that registry names are built with."""
    text = str(escape(name))
    for mark in ("_", "+"):  # neither occurs in an entity
        text = text.replace(mark, mark + "<wbr>")
    return Markup(text)


def whole(name: str) -> Markup:
    """Escape a name that stays on one line if it is short; a longer one may break as `soft_wrap` lets it."""
    return Markup('<span class="nowrap">%s</span>') % name if len(name) <= SHORT else soft_wrap(name)


_FIGURE = re.compile(r"(?:ρ )?[×+−]?[\d.e+]+ \[[^\[\]]*\]")


def figures_whole(text: str) -> Markup:
    """Escape a sentence in which a figure stays on one line with its interval."""
    parts, end = [], 0
    for found in _FIGURE.finditer(text):
        parts += [soft_wrap(text[end : found.start()]), Markup('<span class="nowrap">%s</span>') % found[0]]
        end = found.end()
    return Markup("").join([*parts, soft_wrap(text[end:])])


def environment(name: str, text: str | None = None) -> Environment:
    """An environment that holds one template, strict about names that it lacks.

    Args:
        name: of the template.
        text: of it; a file of this package by default.
    """
    made = Environment(
        loader=DictLoader({name: template(name) if text is None else text}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "separators": (",", ":"),
        "sort_keys": False,
    }
    made.filters |= {
        "percent": percent,
        "budget": budget,
        "duration": duration,
        "count": count,
        "soft_wrap": soft_wrap,
        "whole": whole,
        "figures_whole": figures_whole,
        "holder": holder,
        "model_name": model_name,
    }
    made.globals["plural"] = plural
    return made
