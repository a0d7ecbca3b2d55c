"""One method against all others: the best, or the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import stats

from mergerisk.statistics.claims.claim import Rate  # noqa: TC001 (pydantic reads it)
from mergerisk.statistics.claims.on_epsilon50 import as_ranks, curve_blocks
from mergerisk.statistics.claims.ranks import RankedClaim, task_blocks
from mergerisk.statistics.claims.testing import (
    BOOTSTRAP,
    PERCENT_MEASURES,
    ClaimTest,
    bare,
    column_of,
    complete,
    effect,
    made_on,
    settings_of,
)
from mergerisk.statistics.correction import holm
from mergerisk.statistics.facts import fact
from mergerisk.statistics.power import detectable_lead
from mergerisk.statistics.rank_tests import conover, friedman, rank_picture
from mergerisk.statistics.resampling import Aggregate
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claim_tables import Tables


class ExtremeClaim(RankedClaim):
    """One method against all others.

    Attributes:
        kind: ``best`` or ``worst``: the worst is the one with the highest ASR (of any kind), or the lowest clean
            accuracy.
        method: the target.
        measures: by which; with several it has to be so by each.
    """

    kind: Literal["best", "worst"]
    method: str
    measures: Annotated[tuple[Rate, ...], Field(min_length=1)] = ("relative_asr",)

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return (self.method,)

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures it speaks of."""
        return self.measures

    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """See :meth:`Claim.tested`."""
        parts = [_by(self, measure, tables.rates, denominator, level) for measure in self.measures]
        first = parts[0]
        if len(parts) == 1:
            return first
        compared = replace(
            first.compared,
            values={**first.compared.values, "also_by": tuple(part.measure for part in parts[1:])},
        )
        untested = next((part for part in parts if not part.test), None)
        if untested is not None:
            return ClaimTest(
                compared,
                first.measure,
                missing=fact("by_measure", measure=untested.measure, missing=untested.missing),
            )
        if first.unit == "images":
            missing = fact("one_measure")
            return ClaimTest(compared, first.measure, missing=missing)
        against = [part for part in parts if part.direction < 0]
        # All have to hold, so the weakest decides (Berger 1982); one against it is enough, of as many tries.
        decisive = (
            min(against, key=lambda part: part.p_value) if against else max(parts, key=lambda part: part.p_value)
        )
        p = min(1.0, decisive.p_value * len(parts)) if against else decisive.p_value
        return ClaimTest(
            compared,
            first.measure,
            f"{first.test}, by each measure",
            unit=decisive.unit,
            units=decisive.units,
            rests_on=decisive.rests_on,
            left_out=max(part.left_out for part in parts),
            statistic=decisive.statistic,
            p_value=p,
            direction=-1 if against else min(part.direction for part in parts),
            effects=(
                *decisive.effects,
                *(effect for part in parts if part is not decisive for effect in part.effects),
            ),
            threshold=decisive.threshold,
            supported_in=decisive.supported_in,
            figures=tuple(figure for part in parts for figure in part.figures),
            numbers=decisive.numbers,
            unit_tasks=decisive.unit_tasks,
            aggregate=decisive.aggregate,
            rows=first.rows,
            detectable=decisive.detectable,
            ranks=first.ranks,
            also=(fact("weakest_part", measure=decisive.measure),),
        )

    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:
        """Friedman's and Conover's tests of how easily targets are fooled by ε50."""
        laid_out = curve_blocks(self, curves)
        if laid_out is None or bare(self.measures[0]) == "clean_accuracy":
            return None
        design, targets = laid_out
        matrix = design.medians(curves["weakness"].to_numpy(dtype=np.float64))
        kept = ~np.isnan(matrix).any(axis=1)
        matrix = as_ranks(matrix[kept])
        if len(matrix) < 2:
            return None
        sign = 1.0 if self.kind == "worst" else -1.0
        found, place = friedman(sign * matrix), targets.index(self.method)
        others = np.array([column for column in range(len(targets)) if column != place])
        pairwise = conover(sign * matrix)[place, others]
        ahead = found.mean_ranks[others] < found.mean_ranks[place]
        if ahead.any():
            p, direction = max(found.p_value, float(holm(pairwise)[ahead].min())), -1
        else:
            p, direction = max(found.p_value, float(pairwise.max())), 1
        nearest = int(others[int(np.argmin(found.mean_ranks[others]))])
        leads = sign * (matrix[:, place] - matrix[:, nearest])
        return ClaimTest(
            fact("epsilon50"),
            "epsilon50",
            "Friedman, then Conover against every other",
            unit="tasks",
            units=len(matrix),
            rests_on=len(design.rows),
            statistic=found.statistic,
            p_value=p,
            direction=direction,
            effects=(Effect(fact("rank_lead_over", over=targets[nearest]), float(leads.mean())),),
            threshold=0.0,
            supported_in=(0.0, np.inf),
            numbers=leads,
            unit_tasks=design.tasks[kept],
        )


def _by(claim: ExtremeClaim, measure: str, table: pd.DataFrame, denominator: str, level: float) -> ClaimTest:
    column = column_of(measure, denominator)
    chosen = table[settings_of(claim, table)]
    compared = fact("extreme", measure=column, method=claim.method, surrogates=made_on(chosen, column))
    targets = tuple(sorted(chosen["target"].unique()))
    if claim.method not in targets or len(targets) < 2:
        missing = fact("not_among_targets", target=claim.method) if len(targets) > 1 else fact("nothing_beside_it")
        return ClaimTest(compared, column, missing=missing)
    accuracy = measure == "clean_accuracy"
    if table[column].isna().all():
        return ClaimTest(compared, column, missing=fact("no_measure", measure=measure))
    design, considered = task_blocks(chosen, targets, column)
    everything = len(design.units)
    design, matrix = complete(design, table, column)
    tasks, left_out = len(matrix), considered - len(design.rows)
    if not tasks or (tasks < 2 and accuracy):
        known = fact("few_tasks_hold_all", tasks=tasks, of=everything)
        return ClaimTest(compared, column, missing=known, left_out=left_out)
    # Rank 1 is what the claim says of its method: the highest ASR, or the lowest accuracy, for the worst.
    sign = (1.0 if claim.kind == "worst" else -1.0) * (-1.0 if accuracy else 1.0)
    place = targets.index(claim.method)
    others = np.array([column for column in range(len(targets)) if column != place])
    means = sign * matrix.mean(axis=0)
    nearest = int(others[int(np.argmax(means[others]))])
    rival = targets[nearest]

    def lead(matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ARG001
        return np.asarray(sign * (matrix[..., place] - matrix[..., nearest]), dtype=np.float64)

    numbers = lead(matrix, np.arange(tasks))
    extreme = "highest" if sign > 0 else "lowest"
    effects = [effect(fact("lead", measure=column, over=rival), float(numbers.mean()), bare(measure))]
    if tasks > 1:
        p, direction, statistic, ranks_of, agreement = _by_ranks(sign * matrix, place, others)
        effects += [
            Effect(
                fact("mean_rank", method=claim.method, measure=column, targets=len(targets), first=extreme),
                ranks_of,
            ),
            Effect(fact("kendalls_w", measure=column), agreement),
        ]
    else:
        p, statistic, direction = np.nan, np.nan, int(np.sign(round(float(numbers.mean()), 12)))
    unit = 100 if bare(measure) in PERCENT_MEASURES else 1
    first = int((stats.rankdata(-sign * matrix, axis=-1)[:, place] == 1).sum())
    return ClaimTest(
        compared,
        column,
        "Friedman, then Conover against every other" if tasks > 1 else BOOTSTRAP,
        unit="tasks" if tasks > 1 else "images",
        units=tasks,
        rests_on=len(design.rows),
        left_out=left_out,
        statistic=statistic,
        p_value=p,
        direction=direction,
        # Whoever leads was picked among the others by the data.
        tries=len(others) if direction < 0 else 1,
        effects=tuple(effects),
        threshold=0.0,
        supported_in=(0.0, np.inf),
        figures=(
            fact(
                "tasks_with_extreme",
                method=claim.method,
                extreme=extreme,
                measure=column,
                count=first,
                of=len(numbers),
            ),
        ),
        numbers=unit * numbers,
        unit_tasks=design.tasks,
        aggregate=None if accuracy else Aggregate(design, bare(measure), lead),
        rows=np.zeros(0, dtype=np.intp) if accuracy else design.rows,
        detectable=Effect(fact("rank_lead"), detectable_lead(tasks, len(targets), level=level))
        if tasks > 1
        else None,
        ranks=rank_picture(sign * matrix, targets, level=level) if tasks > 1 else None,
    )


def _by_ranks(
    matrix: NDArray[np.float64], place: int, others: NDArray[np.intp]
) -> tuple[float, int, float, float, float]:
    """p-value, direction and statistic of one column against all others; its mean rank, Kendall's W."""
    found = friedman(matrix)
    ranks, pairwise = found.mean_ranks, conover(matrix)[place, others]
    ahead = ranks[others] < ranks[place]
    if ahead.any():
        p, direction = max(found.p_value, float(holm(pairwise)[ahead].min())), -1
    else:
        p, direction = (
            max(found.p_value, float(pairwise.max())),
            1 if (ranks[others] > ranks[place]).all() else 0,
        )
    return p, direction, found.statistic, float(ranks[place]), found.kendalls_w
