"""Every model under its worst attacker: the one of the study's surrogates that fools it most often.

This is the one definition by which reports, terminals and rankings speak of *the* worst attacker: somebody holds
one surrogate, and uses it for all tasks and attacks. Claims are judged on another, which they name: the worst of
every setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.report.cells import average_over_seeds, axes_of, default_epsilon
from mergerisk.report.epsilon50 import ALL
from mergerisk.report.risk import Mean, asr_table, compared_cells
from mergerisk.study.fields.surrogates import OWN_MERGE
from mergerisk.study.fields.targets import ROUTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.report.cells import Axes
    from mergerisk.report.epsilon50 import MedianEpsilon50
    from mergerisk.report.risk import RiskTable
    from mergerisk.report.summary import Summary
    from mergerisk.statistics import PairOf, Standings


@dataclass(frozen=True)
class WorstAttacker:
    """One model under one surrogate's attacks, at one budget.

    Attributes:
        surrogate: with the highest mean ASR on the model, which is never the model itself.
        asr: mean over tasks and attacks.
        images: that surrogate and model both classify correctly when clean, over all tasks; of several seeds the
            mean.
        relative: mean ASR over the surrogate's own.
        epsilon50: median over tasks and attacks; None if none was measured.
    """

    surrogate: str
    asr: Mean
    images: int
    relative: Mean
    epsilon50: MedianEpsilon50 | None


def attackers(axes: Axes) -> tuple[str, ...]:
    """The surrogates the worst of which counts: holders of merged models, their own too, only where there are no
    others."""
    return tuple(name for name in axes.surrogates if not _holds_a_merge(name, axes)) or axes.surrogates


def _holds_a_merge(surrogate: str, axes: Axes) -> bool:
    return surrogate in axes.methods or surrogate.partition("/")[0] == OWN_MERGE


def worst_surrogates(risks: RiskTable, axes: Axes, epsilon: float) -> dict[str, str]:
    """Target → the surrogate with the highest mean ASR on it at a budget, of equals the first; targets of which no
    ASR is known are left out.

    As the largest of several noisy rates, an ASR errs on the high side where surrogates are close.
    """
    found = {}
    for target in axes.targets:
        known = {
            surrogate: mean.value
            for surrogate in attackers(axes)
            if not holds(surrogate, target)
            and (mean := risks.get((surrogate, epsilon, "asr"), {}).get(target)) is not None
            and not math.isnan(mean.value)
        }
        if known:
            found[target] = max(known, key=lambda surrogate: known[surrogate])
    return found


def worst_by_target(summary: Summary) -> dict[str, str]:
    """`worst_surrogates` at the budget that a report speaks of first."""
    axes, cells = axes_of(summary), average_over_seeds(summary.results)
    return worst_surrogates(asr_table(cells, axes), axes, default_epsilon(cells, axes))


def worst_attackers(
    summary: Summary,
    axes: Axes,
    cells: pd.DataFrame,
    risks: RiskTable,
    medians: Mapping[tuple[str, str, str, str], MedianEpsilon50],
    epsilon: float,
) -> dict[str, WorstAttacker]:
    """Target → its worst attacker at a budget, by `worst_surrogates`."""
    seeds = max(1, summary.results["seed"].nunique())
    return {
        target: WorstAttacker(
            surrogate,
            risks[surrogate, epsilon, "asr"][target],
            images_counted(compared_cells(cells, axes, surrogate, epsilon)[target], seeds),
            risks[surrogate, epsilon, "relative"][target],
            medians.get((surrogate, ALL, ALL, target)),
        )
        for target, surrogate in worst_surrogates(risks, axes, epsilon).items()
    }


def images_counted(rows: pd.DataFrame, seeds: int) -> int:
    """Images that surrogate and target both get right, over the tasks of some cells; of several seeds the mean."""
    # Counts are summed over seeds; attacks share a task's images.
    by_task = rows.groupby("task", observed=True)["images_both_correct"].mean()
    return round(float(by_task.sum()) / seeds)


def under_the_worst(summary: Summary, rates: pd.DataFrame) -> NDArray[np.bool_]:
    """Which settings are attacks of their target's worst attacker at their budget.

    Args:
        summary: of the run.
        rates: with columns ``epsilon``, ``surrogate`` and ``target``.
    """
    axes = axes_of(summary)
    risks = asr_table(average_over_seeds(summary.results), axes)
    chosen = {
        (epsilon, target): surrogate
        for epsilon in axes.epsilons
        for target, surrogate in worst_surrogates(risks, axes, epsilon).items()
    }
    columns = (rates[name].tolist() for name in ("epsilon", "target", "surrogate"))
    return np.array([chosen.get((e, t)) == s for e, t, s in zip(*columns, strict=True)], dtype=bool)


def rated(found: Standings, worst: Mapping[str, WorstAttacker]) -> Standings:
    """The same comparison with the rates and intervals that everything else shows of its methods, safest first."""
    methods = tuple(
        replace(method, value=mean.value, low=mean.low, high=mean.high)
        if (mean := worst[method.name].asr if method.name in worst else None) is not None
        else method
        for method in found.methods
    )
    methods = tuple(sorted(methods, key=lambda method: round(method.value, 12)))
    place = {method.name: i for i, method in enumerate(methods)}
    pairs = tuple(pair if place[pair.first] < place[pair.second] else _turned(pair) for pair in found.pairs)
    return replace(found, methods=methods, pairs=pairs)


def _turned(pair: PairOf) -> PairOf:
    """Where a method lacks some cells, means over those that all have may be in another order."""
    return replace(
        pair, first=pair.second, second=pair.first, difference=-pair.difference, low=-pair.high, high=-pair.low
    )


def holds(surrogate: str, target: str) -> bool:
    """Whether the attacker may hold what is attacked: ``expert/NAME`` is the expert of a task of that name, and
    routing answers by the task's expert."""
    own = target in ("expert", ROUTED) and surrogate.partition("/")[0] == "expert"
    return surrogate == target or own
