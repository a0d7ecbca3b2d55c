"""Mean rates per merging method with intervals, and which methods those intervals tell apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.report.cells import black_box_methods

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.cells import Axes


@dataclass(frozen=True)
class Mean:
    """A mean of rates with an approximate 95 % interval over ``cells`` cells; all NaN if there are none."""

    value: float
    low: float
    high: float
    cells: int

    def overlaps(self, other: Mean) -> bool:
        """Whether the intervals share a point; so too when either is unknown, since nothing is told apart."""
        return not (self.low > other.high or other.low > self.high)


RiskTable = dict[tuple[str, float, str], dict[str, Mean]]
"""Means by target, for each (surrogate, epsilon, rate)."""


@dataclass(frozen=True)
class BudgetOverview:
    """What one budget can show, for one surrogate.

    Attributes:
        mean_asr: over merging methods, tasks and attacks.
        saturated: share of those cells that are saturated, in [0,1].
        pairs_apart: pairs of merging methods whose intervals of mean relative ASR do not overlap.
        pairs: all pairs that could be compared.
    """

    epsilon: float
    mean_asr: float
    saturated: float
    pairs_apart: int
    pairs: int


def mean_over_tasks(frame: pd.DataFrame, value: str, low: str, high: str) -> Mean:
    """Mean over tasks of each task's mean, with an interval recovered from the cells' own (MOVER).

    Zou and Donner (2008), "Construction of confidence limits about effect measures": for a sum of independent
    terms, the squared distances from each estimate to its limit add up. Tasks have different images and count
    as independent; attacks and seeds on one task share images and count as fully dependent, which is wide
    rather than narrow. The interval speaks of these tasks and attacks, not of others.
    """
    tasks: dict[str, list[tuple[float, float, float]]] = {}
    columns = (frame[name].astype(float).tolist() for name in (value, low, high))
    for task, *triple in zip(frame["task"].tolist(), *columns, strict=True):
        if not math.isnan(triple[0]):
            tasks.setdefault(task, []).append((triple[0], triple[1], triple[2]))
    if not tasks:
        return Mean(math.nan, math.nan, math.nan, 0)
    by_task = [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in tasks.values()]
    mean = sum(row[0] for row in by_task) / len(by_task)
    below = math.hypot(*(row[0] - row[1] for row in by_task)) / len(by_task)
    above = math.hypot(*(row[2] - row[0] for row in by_task)) / len(by_task)
    # a missing end makes the mean's end missing, hence the comparison written this way round
    bottom = 0.0 if mean - below < 0 else mean - below
    return Mean(mean, bottom, mean + above, sum(len(rows) for rows in tasks.values()))


def mean_risk(
    cells: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float, rate: str = "relative"
) -> dict[str, Mean]:
    """Mean relative ASR (``rate="relative"``) or ASR (``rate="asr"``) of every target.

    Methods are compared over the same cells: a task and attack counts only if every method that has any value
    has one there. The reference targets are averaged over those cells too, where they have a value. The
    surrogate itself is left out of the comparison (white box) but still gets its mean.
    """
    value = "relative_asr" if rate == "relative" else "asr"
    here = cells[(cells["surrogate"] == surrogate) & (cells["epsilon"] == epsilon)].dropna(subset=[value])
    measured: dict[str, set[tuple[str, str]]] = {}
    methods = black_box_methods(here, axes)
    columns = (methods[name].tolist() for name in ("target", "task", "attack"))
    for target, task, attack in zip(*columns, strict=True):
        measured.setdefault(target, set()).add((task, attack))
    common = set.intersection(*measured.values()) if measured else set()
    pairs = zip(here["task"].tolist(), here["attack"].tolist(), strict=True)
    kept = here.loc[np.array([pair in common for pair in pairs], dtype=bool)]
    by_target = dict(tuple(kept.groupby("target", observed=True)))
    return {
        target: mean_over_tasks(by_target[target], value, f"{rate}_low", f"{rate}_high")
        if target in by_target
        else Mean(math.nan, math.nan, math.nan, 0)
        for target in axes.targets
    }


def risk_table(cells: pd.DataFrame, axes: Axes) -> RiskTable:
    """`mean_risk` for every surrogate, budget and rate (``"relative"`` and ``"asr"``)."""
    return {
        (surrogate, epsilon, rate): mean_risk(cells, axes, surrogate, epsilon, rate)
        for surrogate in axes.surrogates
        for epsilon in axes.epsilons
        for rate in ("relative", "asr")
    }


def compared(means: Mapping[str, Mean], axes: Axes, surrogate: str) -> dict[str, Mean]:
    """The means of merging methods that can be ranked: known, and not the surrogate itself."""
    return {
        name: mean
        for name, mean in means.items()
        if name in axes.methods and name != surrogate and not math.isnan(mean.value)
    }


def pairs_apart(means: Mapping[str, Mean]) -> tuple[int, int]:
    """How many pairs have intervals that do not overlap, and how many pairs there are."""
    pairs = list(combinations(means.values(), 2))
    return sum(not a.overlaps(b) for a, b in pairs), len(pairs)


def budget_overview(
    cells: pd.DataFrame, risks: RiskTable, axes: Axes, surrogate: str
) -> tuple[BudgetOverview, ...]:
    """One `BudgetOverview` per measured budget, ascending; none for a surrogate without results."""
    rows: list[BudgetOverview] = []
    if surrogate not in axes.surrogates:
        return ()
    for epsilon in axes.epsilons:
        here = cells[(cells["surrogate"] == surrogate) & (cells["epsilon"] == epsilon)]
        methods = black_box_methods(here, axes).dropna(subset=["asr"])
        apart, pairs = pairs_apart(compared(risks[surrogate, epsilon, "relative"], axes, surrogate))
        rows.append(
            BudgetOverview(
                epsilon=epsilon,
                mean_asr=float(methods["asr"].mean()) if len(methods) else math.nan,
                saturated=float(methods["saturated"].mean()) if len(methods) else math.nan,
                pairs_apart=apart,
                pairs=pairs,
            )
        )
    return tuple(rows)
