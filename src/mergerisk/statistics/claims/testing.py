"""What a claim's test gives before any correction, and what all kinds of claims choose settings by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergerisk.statistics.cell_means import is_diagnostic
from mergerisk.statistics.claims.claim import SURROGATE_COLUMNS
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.claims.claim import Claim
    from mergerisk.statistics.clusters import Interval
    from mergerisk.statistics.facts import Fact
    from mergerisk.statistics.rank_tests import RankPicture
    from mergerisk.statistics.resampling import Aggregate

PERCENT_MEASURES = frozenset({"asr", "surrogate_asr", "clean_accuracy"})
"""Shares: their differences are shown in percentage points."""

Independent = Literal["tasks", "images", ""]
"""What a test takes as independent of each other."""


@dataclass(frozen=True, eq=False)
class ClaimTest:
    """A claim's test, before any correction.

    Attributes:
        test: its name; empty if the data cannot say anything, for the reason in ``missing``.
        missing: why not.
        compared: what with what.
        unit: what the test takes as independent: ``tasks``; of a single task its ``images``, and then the p-value
            is the bootstrap's of ``aggregate``.
        units: how many of them.
        rests_on: how many settings, pairs or cells those are made of.
        of: which of these three.
        left_out: those that lack a value.
        direction: 1 if the data lean to the claim, −1 if against it, 0 if to neither.
        tries: what a bootstrap's p-value is multiplied by, where the data chose what is tested.
        numbers: one per cell; the first effect is their mean.
        aggregate: the same for resampled rates; None where they do not depend on outcomes.
        minus: what is taken from it, resample by resample.
        supported_in: where the interval of the first effect has to lie for the claim to be supported, and where no
            part of it may lie for it to be contradicted; None if it has no say.
        rows: the settings used.
        also: cautions of the test's own, facts as of a verdict.
        intervals: of the first effect, where a test has its own way to them.

    The others are those of :class:`mergerisk.statistics.ClaimVerdict`.
    """

    compared: Fact
    measure: str
    test: str = ""
    missing: Fact | None = None
    unit: Independent = ""
    units: int = 0
    rests_on: int = 0
    of: str = "settings"
    left_out: int = 0
    statistic: float = np.nan
    p_value: float = np.nan
    direction: int = 0
    tries: int = 1
    effects: tuple[Effect, ...] = ()
    threshold: float = np.nan
    supported_in: tuple[float, float] | None = None
    figures: tuple[Fact, ...] = ()
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    unit_tasks: NDArray[np.object_] = field(default_factory=lambda: np.zeros(0, dtype=object))
    aggregate: Aggregate | None = None
    minus: Aggregate | None = None
    rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    detectable: Effect | None = None
    ranks: RankPicture | None = None
    also: tuple[Fact, ...] = ()
    intervals: tuple[Interval, ...] = ()


BOOTSTRAP = "bootstrap"
"""The test of a single task."""


def bare(measure: str) -> str:
    """A rate without ``_all``; a diagnostic's measure as it is."""
    return measure if is_diagnostic(measure) else measure.removesuffix("_all")


def column_of(measure: str, denominator: str) -> str:
    """The column of rates that holds a measure."""
    rate = not is_diagnostic(measure) and measure != "clean_accuracy"
    ending = "_all" if denominator == "all" and rate else ""
    return f"{bare(measure)}{ending}"


def select(table: pd.DataFrame, *filters: Mapping[str, tuple[str | float, ...]]) -> NDArray[np.bool_]:
    """The rows that pass all filters."""
    kept = np.ones(len(table), dtype=bool)
    for part in filters:
        for column, values in part.items():
            if column == "epsilon":
                given = np.array([float(value) for value in values])
                known = table["epsilon"].to_numpy(dtype=np.float64)
                kept &= (np.abs(known[:, None] - given) < 1e-9).any(axis=1)
            else:
                kept &= table[column].isin(values).to_numpy()
    return kept


def settings_of(claim: Claim, table: pd.DataFrame) -> NDArray[np.bool_]:
    """The rows that a claim is about, with the defaults for roles that its filters do not name."""
    named = {column for part in claim.filters for column in part}
    kept = select(table, claim.where)
    if not named & {"target", "target_role"}:
        kept &= (table["target_role"] == "merge").to_numpy() | table["target"].isin(claim.needs).to_numpy()
        kept &= (table["surrogate"] != table["target"]).to_numpy()
    if not named & set(SURROGATE_COLUMNS):
        kept &= (table["surrogate_role"] != "merge").to_numpy()
    return kept


def difference(matrix: NDArray[np.float64], units: NDArray[np.intp] | None = None) -> NDArray[np.float64]:  # noqa: ARG001
    """First minus second."""
    return np.asarray(matrix[..., 0] - matrix[..., 1], dtype=np.float64)


def treatment(place: int, matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ARG001
    """One column."""
    return np.asarray(matrix[..., place], dtype=np.float64)


def complete(design: Design, table: pd.DataFrame, column: str) -> tuple[Design, NDArray[np.float64]]:
    """The units without a missing cell, and the matrix of their means; of relative ASR ratios of means."""
    if bare(column) == "relative_asr":
        asr, own = (design.matrix(values) for values in parts_of_ratio(table, column))
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = np.where(own > 0, asr / own, np.nan)
    else:
        matrix = design.matrix(table[column].to_numpy(dtype=np.float64))
    kept = np.flatnonzero(~np.isnan(matrix).any(axis=1))
    return design.select(kept), matrix[kept]


def parts_of_ratio(table: pd.DataFrame, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ASR of target and surrogate, of settings where both are known; what relative ASR is the ratio of."""
    ending = column.removeprefix("relative_asr")
    asr, own = (table[f"{name}{ending}"].to_numpy(dtype=np.float64) for name in ("asr", "surrogate_asr"))
    return np.where(np.isnan(own), np.nan, asr), np.where(np.isnan(asr), np.nan, own)


def made_on(chosen: pd.DataFrame, column: str, claim: Claim | None = None) -> tuple[str, ...]:
    """Which surrogates' attacks are compared, by name; none where they are what is compared, or do not matter."""
    named = set() if claim is None else {name for part in claim.filters[1:] for name in part}
    if column == "clean_accuracy" or set(SURROGATE_COLUMNS) & named:
        return ()
    return tuple(sorted(str(name) for name in chosen["surrogate"].unique()))


def depends_on(measure: str, columns: Sequence[str]) -> list[str]:
    """The columns that a measure can differ by: a clean accuracy knows no attack, surrogate or budget, a
    diagnostic no attack or budget, and the same number again and again would be no further evidence."""
    same = {"attack", "epsilon"} if is_diagnostic(measure) or measure == "clean_accuracy" else set()
    same |= set(SURROGATE_COLUMNS) if measure == "clean_accuracy" else set()
    return [name for name in columns if name not in same]


def task_means(numbers: NDArray[np.float64], tasks: NDArray[np.object_]) -> NDArray[np.float64]:
    """The mean of every task's numbers, tasks by name."""
    return np.array([numbers[tasks == task].mean() for task in sorted(set(tasks))])


def effect(name: Fact, value: float, measure: str) -> Effect:
    """Shares as percentage points; ΔASR is in those already."""
    if measure in PERCENT_MEASURES:
        return Effect(name, 100 * value, "points")
    return Effect(name, value, "points" if measure == "delta_asr" else "")


def in_units(value: float, measure: str) -> float:
    """A number in the unit that effects of a measure have."""
    return 100 * value if measure in PERCENT_MEASURES else value
