"""One diagnostic explains more of who is fooled than another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator
from scipy import stats

from mergerisk.statistics.claims.claim import Claim, Diagnostic
from mergerisk.statistics.claims.testing import ClaimTest, column_of, made_on, settings_of
from mergerisk.statistics.clusters import Interval, cluster_mean
from mergerisk.statistics.explaining.correlation import two_correlations
from mergerisk.statistics.facts import fact
from mergerisk.statistics.power import detectable_mean
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claim_tables import Tables


class ExplainsClaim(Claim):
    """``{kind: explains, measure: gradient_alignment, than: weight_distance, between: targets}``: the rank
    correlation of one diagnostic with being fooled, inside blocks of task, attack, budget and surrogate, is larger
    than that of another, each in the direction that it has over all tasks.

    Attributes:
        measure: that explains more.
        than: that explains less.
        between: ``images`` of one target, or ``targets``, by means over images; of what has one value per pair of
            models only the latter can be said.
    """

    kind: Literal["explains"] = "explains"
    measure: Diagnostic
    than: Diagnostic
    between: Literal["images", "targets"] = "images"

    @model_validator(mode="after")
    def _two(self) -> ExplainsClaim:
        if self.measure == self.than:
            raise ValueError("measure and than: must be two measures")
        return self

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures it speaks of."""
        return (self.measure,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Both measures."""
        return (self.measure, self.than)

    def tested(self, tables: Tables, denominator: str, level: float) -> ClaimTest:
        """See :meth:`Claim.tested`."""
        column = column_of("asr", denominator)
        chosen = settings_of(self, tables.rates)
        compared = fact(
            "explains",
            measure=self.measure,
            than=self.than,
            between=self.between,
            outcome=column,
            surrogates=made_on(tables.rates[chosen], column),
        )
        rows, settings = _rows(tables, chosen, denominator, self.reads)
        if rows.empty:
            return ClaimTest(compared, column, missing=fact("no_setting"))
        single = [name for name in self.reads if tables.measured.get(name) == "pair"]
        if self.between == "images" and single:
            return ClaimTest(compared, column, missing=fact("same_for_all_images", measure=single[0]))
        found = two_correlations(rows, self.measure, self.than, between=self.between)
        if not len(found.tasks):
            return ClaimTest(compared, column, missing=fact("nothing_varies", between=self.between))
        numbers, tasks = found.differences, np.array(found.tasks, dtype=object)
        mean = float(numbers.mean())
        across = cluster_mean(numbers, tasks)
        if len(tasks) < 2:
            p = float(2 * stats.t.sf(abs(mean) / found.error, found.freedom)) if found.error > 0 else np.nan
        elif round(across.error, 12) == 0:
            p = min(1.0, 2 * 0.5**across.clusters)  # t would be infinite; flipping the signs of all tasks is not
        else:
            p = 2 * min(across.p_greater(0), 1 - across.p_greater(0))
        reach = float(stats.t.isf(level / 2, max(1, found.freedom))) * found.error
        return ClaimTest(
            compared,
            column,
            "t-test of differences of rank correlations",
            unit="tasks" if len(tasks) > 1 else "images",
            units=len(tasks),
            rests_on=len(settings),
            statistic=mean / across.error if across.error > 0 else np.nan,
            p_value=p,
            direction=int(np.sign(round(mean, 12))),
            effects=(
                Effect(fact("explains_more"), mean),
                Effect(fact("rho_with_fooled", measure=self.measure), float(found.first.mean())),
                Effect(fact("rho_with_fooled", measure=self.than), float(found.second.mean())),
            ),
            threshold=0.0,
            figures=(fact("tasks_explained_more", count=int((numbers > 0).sum()), of=len(numbers)),),
            supported_in=(0.0, np.inf),
            numbers=numbers,
            unit_tasks=tasks,
            rows=settings,
            detectable=Effect(fact("explains_more"), detectable_mean(numbers, level=level))
            if len(tasks) > 1
            else None,
            intervals=(Interval(mean - reach, mean + reach, 1 - level, "images", fact("jackknife")),),
        )

    def tested_on_epsilon50(self, curves: pd.DataFrame) -> ClaimTest | None:  # noqa: ARG002
        """None: ε50 is no outcome of an image."""
        return None


def _rows(
    tables: Tables, chosen: NDArray[np.bool_], denominator: str, measures: tuple[str, ...]
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """A row per image that counts in a chosen setting, as explanations take them; and which settings those are."""
    outcomes, codes, happened = tables.outcomes, tables.setting_of, tables.happened
    assert outcomes is not None
    assert codes is not None
    assert happened is not None
    keep = chosen[codes] & (happened.counts if denominator == "both_correct" else True)
    names = ["task", "attack", "surrogate", "target"]
    rows = outcomes.loc[keep, [*names, "epsilon", "seed", "image", *measures]].astype(dict.fromkeys(names, str))
    # What is never compared across besides: attackers, and seeds, under which models are others.
    rows["attack"] += " from " + rows.pop("surrogate") + ", seed " + rows.pop("seed").astype(str)
    return rows.assign(fooled=happened.target_wrong[keep]).reset_index(drop=True), np.unique(codes[keep])
