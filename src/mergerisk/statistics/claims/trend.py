"""Methods along an order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator
from scipy import stats

from mergerisk.statistics.cell_means import is_diagnostic
from mergerisk.statistics.claims.claim import Measure  # noqa: TC001 (pydantic reads it)
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
from mergerisk.statistics.facts import fact
from mergerisk.statistics.power import detectable_rho
from mergerisk.statistics.rank_tests import page, rank_picture
from mergerisk.statistics.resampling import Aggregate
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claim_tables import Tables


class TrendClaim(RankedClaim):
    """Methods along an order: stated (``order: [ties, adamerging]``) or measured (``by: clean_accuracy``).

    Attributes:
        measure: that rises or falls.
        expect: which.
        order: the targets, first to last; with ``by`` all that there are.
        by: measure that orders them, task by task.
    """

    kind: Literal["trend"] = "trend"
    measure: Measure = "relative_asr"
    expect: Literal["rising", "falling"] = "rising"
    order: tuple[str, ...] = ()
    by: Measure | None = None

    @model_validator(mode="after")
    def _one_order(self) -> TrendClaim:
        if bool(self.order) == bool(self.by):
            raise ValueError("give either order, a list of targets, or by, a measure that orders them")
        if self.order and len(set(self.order)) < max(2, len(self.order)):
            raise ValueError("order: needs at least two targets, none twice")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return self.order

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures it speaks of."""
        return (self.measure,)

    @property
    def reads(self) -> tuple[str, ...]:
        """And the one that orders."""
        return (self.measure, *([self.by] if self.by else []))

    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """See :meth:`Claim.tested`."""
        table = tables.rates
        column = column_of(self.measure, denominator)
        along = column_of(self.by, denominator) if self.by else ""
        chosen = table[settings_of(self, table)]
        compared = fact("trend", measure=column, by=along, order=self.order, surrogates=made_on(chosen, column))
        targets = self.order or tuple(sorted(chosen["target"].unique()))
        lacking = [name for name in self.order if name not in set(chosen["target"])]
        if lacking or len(targets) < 2:
            missing = fact("not_among_targets", target=lacking[0]) if lacking else fact("no_two_targets")
            return ClaimTest(compared, column, missing=missing)
        design, considered = task_blocks(chosen, targets, column)
        everything = len(design.units)
        if self.by:
            orders = design.matrix(table[along].to_numpy(dtype=np.float64))
            if np.isnan(orders).all():
                return ClaimTest(compared, column, missing=fact("no_measure", measure=self.by))
            design = design.select(np.flatnonzero(~np.isnan(orders).any(axis=1)))
        design, matrix = complete(design, table, column)
        tasks, left_out = len(matrix), considered - len(design.rows)
        if not tasks:
            missing = fact("few_tasks_hold_all", tasks=0, of=everything)
            return ClaimTest(compared, column, missing=missing, left_out=left_out)
        order = (
            design.matrix(table[along].to_numpy(dtype=np.float64))
            if self.by
            else np.broadcast_to(np.arange(len(targets), dtype=np.float64), matrix.shape)
        )
        found = page(matrix, order)
        per_block = found.rhos[~np.isnan(found.rhos)]
        measure = bare(self.measure)
        unit = 100 if measure in PERCENT_MEASURES else 1
        slopes = stats.rankdata(order, axis=1) - (len(targets) + 1) / 2
        spread = (slopes**2).sum(axis=1, keepdims=True)
        slopes = np.divide(slopes, spread, out=np.zeros_like(slopes), where=spread > 0)

        def rise(matrix: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:
            return np.asarray((matrix * slopes[units]).sum(axis=-1), dtype=np.float64)

        numbers = rise(matrix, np.arange(tasks))
        if tasks > 1:
            rising = 1 if found.p_rising < found.p_falling else -1 if found.p_falling < found.p_rising else 0
        else:
            rising = int(np.sign(round(float(numbers.mean()), 12)))
        return ClaimTest(
            compared,
            column,
            f"Page's trend test ({'exact' if found.exact else 'normal approximation'})"
            if tasks > 1
            else BOOTSTRAP,
            unit="tasks" if tasks > 1 else "images",
            units=tasks,
            rests_on=len(design.rows),
            left_out=left_out,
            statistic=found.statistic if tasks > 1 else np.nan,
            p_value=found.p_value if tasks > 1 else np.nan,
            direction=rising if self.expect == "rising" else -rising,
            effects=(
                effect(fact("rise"), float(numbers.mean()), measure),
                Effect(fact("spearman"), found.rho),
            ),
            threshold=0.0,
            supported_in=(0.0, np.inf) if self.expect == "rising" else (-np.inf, 0.0),
            figures=(
                fact("rho_above_0", count=int((per_block > 0).sum()), of=len(per_block)),
                fact("targets_ordered", count=len(targets)),
            ),
            numbers=unit * numbers,
            unit_tasks=design.tasks,
            aggregate=None if measure == "clean_accuracy" else Aggregate(design, measure, rise),
            rows=design.rows,
            detectable=Effect(fact("mean_rho"), detectable_rho(tasks, len(targets), level=level))
            if tasks > 1
            else None,
            ranks=rank_picture(matrix, targets, level=level) if tasks > 1 else None,
        )

    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:
        """Page's test of how easily targets are fooled by ε50."""
        laid_out = curve_blocks(self, curves, self.order)
        told = bare(self.measure) != "clean_accuracy" and not is_diagnostic(self.measure)
        if laid_out is None or not told or self.by not in {None, "clean_accuracy"}:
            return None
        design, targets = laid_out
        matrix = design.medians(curves["weakness"].to_numpy(dtype=np.float64))
        order = (
            design.matrix(curves["clean_accuracy"].to_numpy(dtype=np.float64))
            if self.by
            else np.broadcast_to(np.arange(len(targets), dtype=np.float64), matrix.shape)
        )
        kept = ~(np.isnan(matrix) | np.isnan(order)).any(axis=1)
        if kept.sum() < 2:
            return None
        found = page(as_ranks(matrix[kept]), order[kept])
        rising = 1 if found.p_rising < found.p_falling else -1 if found.p_falling < found.p_rising else 0
        return ClaimTest(
            fact("epsilon50"),
            "epsilon50",
            "Page's trend test",
            unit="tasks",
            units=found.blocks,
            rests_on=len(design.rows),
            statistic=found.statistic,
            p_value=found.p_value,
            direction=rising if self.expect == "rising" else -rising,
            effects=(Effect(fact("spearman"), found.rho),),
            threshold=0.0,
            supported_in=(0.0, np.inf) if self.expect == "rising" else (-np.inf, 0.0),
            numbers=found.rhos[~np.isnan(found.rhos)],
            unit_tasks=design.tasks[kept][~np.isnan(found.rhos)],
        )
