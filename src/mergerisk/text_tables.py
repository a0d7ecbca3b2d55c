"""Tables for a terminal, or for whoever reads plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH = 100_000
"""Columns of the page that tables are laid out on: no line is broken, whatever the terminal."""


def text_table(rows: Sequence[Sequence[str]], *, ruled: bool = False, right: bool = False) -> str:
    """Columns of text, two spaces apart; a cell may have several lines.

    Args:
        rows: of equal length, the titles first.
        ruled: draw a line below the titles.
        right: align all columns but the first to the right.
    """
    from rich.console import Console
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(len(rows[0])):
        table.add_column(justify="right" if right and number else "left", no_wrap=True)
    for position, row in enumerate(rows):
        table.add_row(*(Text(cell.removesuffix("\n")) for cell in row))  # as it is, without markup
        if ruled and position == 0:
            table.add_row(*(Rule(style="none") for _ in row))
    page = Console(width=_WIDTH, color_system=None, force_terminal=False)
    with page.capture() as captured:
        page.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """A ruled table of rows, at least one, each title → cell, in one order."""
    return text_table([tuple(rows[0]), *(tuple(row.values()) for row in rows)], ruled=True)


def table_width(rows: Sequence[Sequence[str]]) -> int:
    """Columns of a terminal that a table takes."""
    from rich.cells import cell_len

    return max(map(cell_len, text_table(rows, ruled=True).splitlines()))
