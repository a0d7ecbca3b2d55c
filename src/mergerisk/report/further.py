"""The tables that a study asks for besides those of every run, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergerisk.report.formatting import MISSING

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.study.tables.catalogue import Kept
    from mergerisk.study.tables.declared import Column

MOST_ROWS = 60
"""Shown on the page; the rest are in the file."""

_PLACES = frozenset({"image", "seed", "label", "prediction"})
"""Numbers that are no measurements: their middle means nothing."""


@dataclass(frozen=True)
class FurtherTable:
    """A table in short: of every combination of names the middle of what was measured.

    Attributes:
        name: of the table.
        file: of the run's folder, with all of it.
        one_row_per: what a row of the file is about.
        rows_in_file: how many.
        columns: of the table in short: those that hold names, then what was measured.
        names: how many of ``columns`` hold names.
        rows: one text per column, behind them the number of rows of the file.
        left_out: rows that are not shown.
    """

    name: str
    file: str
    one_row_per: str
    rows_in_file: int
    columns: tuple[Column, ...]
    names: int
    rows: tuple[tuple[str, ...], ...]
    left_out: int


def in_short(kept: Kept) -> FurtherTable:
    """Median and quartiles of what was measured, by the columns that hold names, in the table's order."""
    declared, table = kept
    names = [column for column in declared.columns if column.holds == "name"]
    measured = [column for column in declared.columns if column.holds == "number" and column.name not in _PLACES]
    by = [column.name for column in names]
    groups = table.groupby(by, observed=True, sort=False) if by else [((), table)]
    rows = [
        (*map(str, key), *(_middle(group[column.name]) for column in measured), f"{len(group):,}")
        for key, group in groups
    ]
    return FurtherTable(
        declared.name,
        declared.file,
        declared.one_row_per,
        len(table),
        (*names, *measured),
        len(names),
        tuple(rows[:MOST_ROWS]),
        max(0, len(rows) - MOST_ROWS),
    )


def _middle(values: pd.Series[float]) -> str:
    """Median and quartiles; a dash where nothing is known."""
    known = values.dropna()
    if known.empty:
        return MISSING
    # Nothing lies between a number and infinity.
    between: Literal["linear", "nearest"] = "linear" if np.isfinite(known).all() else "nearest"
    low, middle, high = known.quantile([0.25, 0.5, 0.75], interpolation=between)
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"
