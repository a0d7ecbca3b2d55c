"""The tables that a study asks for besides those of every run, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from mergerisk.report.formatting import MISSING
from mergerisk.statistics.intervals import mean_interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mergerisk.study.tables.catalogue import Kept
    from mergerisk.study.tables.declared import Column, Declared, ShownBy

MOST_ROWS = 60
"""Shown on the page; the rest are in the file."""

_PLACES = frozenset({"image", "seed", "label", "prediction"})
"""Numbers that are no measurements: their middle means nothing."""


@dataclass(frozen=True)
class FurtherTable:
    """A table in short: of every combination of names and settings the middle of what was measured, or its mean.

    Attributes:
        name: of the table.
        file: of the run's folder, with all of it.
        one_row_per: what a row of the file is about.
        rows_in_file: how many.
        columns: of the table in short: those that hold names and settings, then what was measured.
        names: how many of ``columns`` hold names and settings.
        shown_by: whether medians or means are shown.
        rows: one text per column, behind them the number of rows of the file.
        left_out: rows that are not shown.
    """

    name: str
    file: str
    one_row_per: str
    rows_in_file: int
    columns: tuple[Column, ...]
    names: int
    shown_by: ShownBy
    rows: tuple[tuple[str, ...], ...]
    left_out: int


def in_short(kept: Kept) -> FurtherTable:
    """Median and quartiles of what was measured, or its mean with an interval, by the columns that hold names and
    settings, in the table's order."""
    declared, table = kept
    by, measured = _parted(declared)
    shown = _middle if declared.shown_by == "median" else _mean
    rows = [
        (*map(_named, key), *(shown(group[column.name], column) for column in measured), f"{len(group):,}")
        for key, group in _groups(table, by)
    ]
    return FurtherTable(
        declared.name,
        declared.file,
        declared.one_row_per,
        len(table),
        (*by, *measured),
        len(by),
        declared.shown_by,
        tuple(rows[:MOST_ROWS]),
        max(0, len(rows) - MOST_ROWS),
    )


def means(kept: Kept) -> pd.DataFrame:
    """Of every combination of names and settings, of every number its mean with a 95% interval (``NAME``,
    ``NAME_low``, ``NAME_high``), and how many ``rows`` it is of."""
    declared, table = kept
    by, measured = _parted(declared)
    rows = []
    for key, group in _groups(table, by):
        row: dict[str, object] = dict(zip((column.name for column in by), key, strict=True))
        for column in measured:
            ends = _with_interval(group[column.name], column)
            row |= dict(zip((column.name, f"{column.name}_low", f"{column.name}_high"), ends, strict=True))
        rows.append(row | {"rows": len(group)})
    return pd.DataFrame(rows)


def _with_interval(values: pd.Series[float], column: Column) -> tuple[float, float, float]:
    """Mean and ends of Student's 95% interval, or Wilson's of a rate, of the values that are known; NaN where
    there are none, no ends where there is one number."""
    known = values.dropna().to_numpy(dtype=np.float64)
    if not len(known):
        return np.nan, np.nan, np.nan
    if column.holds == "yes_no":
        low, high = map(float, wilson_interval(known.sum(), len(known)))
    else:
        low, high = mean_interval(known)
    return float(known.mean()), low, high


def _parted(declared: Declared) -> tuple[list[Column], list[Column]]:
    """What tells groups of rows apart, and what was measured."""
    by = [column for column in declared.columns if column.holds in {"name", "setting"}]
    measured = [
        column
        for column in declared.columns
        if column.holds in {"number", "yes_no"} and column.name not in _PLACES
    ]
    return by, measured


def _groups(table: pd.DataFrame, by: list[Column]) -> Iterator[tuple[tuple[object, ...], pd.DataFrame]]:
    """The rows of each combination."""
    names = [column.name for column in by]
    if not names:
        yield (), table
    else:
        yield from table.groupby(names, observed=True, sort=False)


def _named(key: object) -> str:
    """A name, or a setting to few digits."""
    return f"{key:.3g}" if isinstance(key, float) else str(key)


def _mean(values: pd.Series[float], column: Column) -> str:
    """Mean with its interval; a dash where nothing is known."""
    mean, low, high = _with_interval(values, column)
    if np.isnan(mean):
        return MISSING
    return f"{mean:.3g}" if np.isnan(low) else f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def _middle(values: pd.Series[float], _: Column) -> str:
    """Median and quartiles; a dash where nothing is known."""
    known = values.dropna()
    if known.empty:
        return MISSING
    # Nothing lies between a number and infinity.
    between: Literal["linear", "nearest"] = "linear" if np.isfinite(known).all() else "nearest"
    low, middle, high = known.quantile([0.25, 0.5, 0.75], interpolation=between)
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"
