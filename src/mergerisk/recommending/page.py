"""A recommendation as one page of HTML that needs nothing else."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING

from mergerisk.provenance import versions
from mergerisk.recommending.words import (
    BESIDE,
    COLUMNS,
    SEARCHED,
    basis,
    beside_rows,
    not_shown,
    others,
    reference_rows,
    rows,
    search_line,
    searched_rows,
    standing,
)
from mergerisk.report.formatting import percent
from mergerisk.report.price_picture import Arrow, accuracy_svg
from mergerisk.report.price_words import half_text
from mergerisk.report.templating import environment, page_style

if TYPE_CHECKING:
    from mergerisk.recommending.result import Measured, Recommendation


_OF_REFERENCES = 5
"""Columns that say something of the study's own merges."""


def to_html(made: Recommendation) -> str:
    """The page; names from outside are escaped."""
    text = resources.files("mergerisk.recommending").joinpath("templates", "recommendation.html.j2")
    page = environment("recommendation.html.j2", text.read_text(encoding="utf-8")).get_template(
        "recommendation.html.j2"
    )
    best = made.best
    return page.render(
        made=made,
        style=page_style(),
        accuracy=percent(best.accuracy.value, 1),
        half=half_text(best.epsilon50, made.epsilons),
        standing=standing(made, best),
        searched=search_line(made),
        others=others(made),
        picture=accuracy_svg(arrows(made), made.epsilons),
        columns=COLUMNS,
        rows=rows(made),
        reference_columns=COLUMNS[:_OF_REFERENCES],
        references=[row[:_OF_REFERENCES] for row in reference_rows(made)],
        beside_columns=BESIDE[1:],
        beside=[(one, not_shown(one), [row[1:] for row in beside_rows(made, one.name)]) for one in made.recipes],
        searched_columns=SEARCHED,
        searched_rows=searched_rows(made),
        basis=basis(made),
        version=versions()["mergerisk"],
    )


def arrows(made: Recommendation) -> tuple[Arrow, ...]:
    """The recipes, and the study's merges, as the picture has them."""
    known = {one.name: one for one in (*made.references, *made.recipes)}
    return tuple(_arrow(one) for one in known.values() if not math.isnan(one.accuracy.value + one.epsilon50.value))


def _arrow(one: Measured) -> Arrow:
    ghost = None if one.unaware is None else one.unaware.value
    return Arrow(
        one.name,
        one.accuracy.value,
        ghost,
        one.epsilon50.value,
        None if one.checks is None else not one.checks,
        reference=one.recipe is None,
        best=one.best,
    )
