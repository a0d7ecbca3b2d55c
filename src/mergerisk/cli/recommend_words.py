"""What ``mergerisk recommend`` prints."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

from mergerisk.recommending.words import (
    BESIDE,
    COLUMNS,
    basis,
    beside_rows,
    headline,
    not_shown,
    others,
    reference_rows,
    rows,
    search_line,
)
from mergerisk.recommending.writing import PAGE
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from mergerisk.recommending.result import Recommendation

WIDTH = 100
"""Columns of the longest line of text; tables may be wider."""


def describe_recommendation(made: Recommendation) -> str:
    """Everything, in lines of at most :data:`WIDTH` columns but for the tables and the recipes."""
    table = text_table([COLUMNS, *rows(made), *reference_rows(made)], ruled=True)
    recipes = [
        f"{one.name}: {one.recipe}; {made.folder / one.file}{f'. {failed}' if (failed := not_shown(one)) else ''}"
        for one in made.recipes
    ]
    beside = beside_rows(made, made.recommended)
    parts = [
        "\n".join(fill(said, WIDTH) for said in (headline(made), search_line(made), *others(made))),
        table,
        "\n".join(recipes),
        *([text_table([BESIDE, *beside], ruled=True)] if beside else []),
        fill(basis(made), WIDTH),
        *(["\n".join(f"note: {note}" for note in made.notes)] if made.notes else []),
        f"page: {made.folder / PAGE}",
    ]
    return "\n\n".join(parts)
