"""Mean rates per merging method with intervals, and which methods those intervals tell apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.report.cells import black_box_methods
from mergerisk.report.formatting import interval, with_interval
from mergerisk.statistics import mean_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from mergerisk.report.cells import Axes
    from mergerisk.statistics import Standings


@dataclass(frozen=True)
class Mean:
    """A mean of rates, or a ratio of two, with an approximate 95 % interval over ``cells`` cells; all NaN if there
    are none. The upper end of a ratio may be infinite."""

    value: float
    low: float
    high: float
    cells: int

    def overlaps(self, other: Mean) -> bool:
        """Whether the intervals share a point; so too when either is unknown, since nothing is told apart."""
        return not (self.low > other.high or other.low > self.high)


def mean_text(mean: Mean) -> str:
    """A mean in percent with its interval."""
    return with_interval(mean.value, mean.low, mean.high, 1)


RiskTable = dict[tuple[str, float, str], dict[str, Mean]]
"""Means by target, for each (surrogate, epsilon, rate)."""


@dataclass(frozen=True)
class BudgetOverview:
    """What one budget can show, for one surrogate.

    Attributes:
        mean_asr: over merging methods, tasks and attacks, with
        low: and
        high: the ends of a 95 % interval that takes the methods as fully dependent;
        images: counted, in the cells of fewest and
        most_images: of most.
        cells: how many those are.
        saturated: share of them that are saturated, in [0,1].
        pairs_apart: pairs of merging methods told apart under the worst attacker, on the same images.
        pairs: all pairs that could be compared.
    """

    epsilon: float
    mean_asr: float
    low: float
    high: float
    images: int
    most_images: int
    cells: int
    saturated: float
    pairs_apart: int
    pairs: int

    @property
    def interval(self) -> str:
        """Of the mean ASR, with the images counted: ``[6, 10], n 76–95``."""
        most = f"–{self.most_images}" if self.most_images != self.images else ""
        return f"{interval(self.low, self.high)}, n {self.images}{most}".lstrip(", ")


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


def ratio_over_tasks(frame: pd.DataFrame) -> Mean:
    """Relative ASR of some cells: the mean ASR of the target over the surrogate's, both means over tasks of each
    task's mean.

    A mean of the cells' own ratios would be carried by those few in which the surrogate is hardly ever fooled. The
    interval is `mergerisk.statistics.mean_ratio_interval`, with tasks as strata; within a task ends are averaged,
    as in `mean_over_tasks`, and so are correlations. Cells whose ASR is unknown are left out.

    Args:
        frame: rows of `average_over_seeds`.
    """
    names = [
        "asr",
        "asr_low",
        "asr_high",
        "surrogate_asr",
        "surrogate_asr_low",
        "surrogate_asr_high",
        "correlation",
    ]
    tasks: dict[str, list[tuple[float, ...]]] = {}
    columns = (frame[name].tolist() for name in names)
    for task, *row in zip(frame["task"].tolist(), *columns, strict=True):
        if not math.isnan(row[0]):
            tasks.setdefault(task, []).append(tuple(row))
    if not tasks:
        return Mean(math.nan, math.nan, math.nan, 0)
    by_task = np.array(
        [[sum(column) / len(rows) for column in zip(*rows, strict=True)] for rows in tasks.values()]
    )
    target, own, rho = tuple(by_task.T[:3]), tuple(by_task.T[3:6]), by_task.T[6]
    cells = sum(len(rows) for rows in tasks.values())
    if own[0].sum() == 0:
        return Mean(math.nan, math.nan, math.nan, cells)
    low, high = mean_ratio_interval((target[0], target[1], target[2]), (own[0], own[1], own[2]), rho)
    return Mean(float(target[0].sum() / own[0].sum()), low, high, cells)


def mean_of_ratios(frame: pd.DataFrame) -> float:
    """The mean over tasks of the cells' own relative ASRs, for comparison with `ratio_over_tasks`; NaN of none."""
    return float(frame.groupby("task", observed=True)["relative_asr"].mean().mean())


def compared_cells(cells: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float) -> dict[str, pd.DataFrame]:
    """The cells over which targets are compared, by target.

    Methods are compared over the same cells: a task and attack counts only if every method that has any value
    has one there. The reference targets are averaged over those cells too, where they have a value. The
    surrogate itself is left out of the comparison (white box) but still has its cells.
    """
    here = cells[(cells["surrogate"] == surrogate) & (cells["epsilon"] == epsilon)].dropna(subset=["asr"])
    measured: dict[str, set[tuple[str, str]]] = {}
    methods = black_box_methods(here, axes)
    columns = (methods[name].tolist() for name in ("target", "task", "attack"))
    for target, task, attack in zip(*columns, strict=True):
        measured.setdefault(target, set()).add((task, attack))
    common = set.intersection(*measured.values()) if measured else set()
    pairs = zip(here["task"].tolist(), here["attack"].tolist(), strict=True)
    kept = here.loc[np.array([pair in common for pair in pairs], dtype=bool)]
    return {str(target): rows for target, rows in kept.groupby("target", observed=True)}


def _mean(rows: pd.DataFrame | None, rate: str) -> Mean:
    """Of one target's cells, a mean over tasks or a ratio of such means; NaN where there are none."""
    if rows is None:
        return Mean(math.nan, math.nan, math.nan, 0)
    return ratio_over_tasks(rows) if rate == "relative" else mean_over_tasks(rows, "asr", "asr_low", "asr_high")


def risk_table(cells: pd.DataFrame, axes: Axes) -> RiskTable:
    """Of every surrogate, budget and rate, every target's mean over `compared_cells`.

    The rates are relative ASR (``"relative"``, a ratio of means) and ASR (``"asr"``, a mean).
    """
    return _table(cells, axes, ("relative", "asr"))


def asr_table(cells: pd.DataFrame, axes: Axes) -> RiskTable:
    """`risk_table`, of mean ASRs alone."""
    return _table(cells, axes, ("asr",))


def _table(cells: pd.DataFrame, axes: Axes, rates: tuple[str, ...]) -> RiskTable:
    table: RiskTable = {}
    for surrogate in axes.surrogates:
        for epsilon in axes.epsilons:
            by_target = compared_cells(cells, axes, surrogate, epsilon)
            for rate in rates:
                table[surrogate, epsilon, rate] = {
                    target: _mean(by_target.get(target), rate) for target in axes.targets
                }
    return table


CARRIED, LITTLE = 0.1, 0.02
"""From this difference on, relative to the larger and by itself, a mean of ratios is said to differ much from a
ratio of means."""


def carried_by_few(
    cells: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float
) -> dict[str, tuple[float, float]]:
    """Merging methods whose relative ASR (a ratio of means) and mean of the cells' own ratios differ much.

    Returns:
        Method → (ratio of means, mean of ratios), those that differ most first.
    """
    found = {}
    for target, rows in compared_cells(cells, axes, surrogate, epsilon).items():
        if target not in axes.methods or target == surrogate:
            continue
        ratio, mean = ratio_over_tasks(rows).value, mean_of_ratios(rows)
        if abs(mean - ratio) > max(CARRIED * max(mean, ratio), LITTLE):
            found[target] = ratio, mean
    return dict(sorted(found.items(), key=lambda item: -abs(item[1][1] - item[1][0])))


def compared(means: Mapping[str, Mean], axes: Axes, surrogate: str) -> dict[str, Mean]:
    """The means of merging methods that can be ranked: known, and not the surrogate itself."""
    return {
        name: mean
        for name, mean in means.items()
        if name in axes.methods and name != surrogate and not math.isnan(mean.value)
    }


def at_budget(found: Iterable[Standings], epsilon: float) -> Standings | None:
    """How methods stand at one budget; None where nothing says."""
    return next((standing for standing in found if math.isclose(standing.epsilon, epsilon)), None)


def budget_overview(
    cells: pd.DataFrame, axes: Axes, surrogate: str, standings: Iterable[Standings]
) -> tuple[BudgetOverview, ...]:
    """One `BudgetOverview` per measured budget, ascending; none for a surrogate without results."""
    rows: list[BudgetOverview] = []
    known = tuple(standings)
    if surrogate not in axes.surrogates:
        return ()
    for epsilon in axes.epsilons:
        here = cells[(cells["surrogate"] == surrogate) & (cells["epsilon"] == epsilon)]
        methods = black_box_methods(here, axes).dropna(subset=["asr"])
        standing = at_budget(known, epsilon)
        mean = mean_over_tasks(methods, "asr", "asr_low", "asr_high")
        rows.append(
            BudgetOverview(
                epsilon=epsilon,
                mean_asr=mean.value,
                low=mean.low,
                high=mean.high,
                images=int(methods["images_both_correct"].min()) if len(methods) else 0,
                most_images=int(methods["images_both_correct"].max()) if len(methods) else 0,
                cells=len(methods),
                saturated=float(methods["saturated"].mean()) if len(methods) else math.nan,
                pairs_apart=standing.pairs_apart if standing else 0,
                pairs=len(standing.pairs) if standing else 0,
            )
        )
    return tuple(rows)
