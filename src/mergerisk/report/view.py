"""What page and exports both start from: a summary's tables once they are averaged and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.answers import answers
from mergerisk.report.cells import average_over_seeds, axes_of, default_epsilon
from mergerisk.report.epsilon50 import epsilon50_table
from mergerisk.report.findings import strongest, verdict
from mergerisk.report.formatting import listing, percent
from mergerisk.report.naming import change, holder
from mergerisk.report.risk import at_budget, budget_overview, carried_by_few, risk_table
from mergerisk.report.worst import rated, worst_attackers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from mergerisk.report.cells import Axes
    from mergerisk.report.epsilon50 import MedianEpsilon50
    from mergerisk.report.findings import Finding
    from mergerisk.report.risk import BudgetOverview, Mean, RiskTable
    from mergerisk.report.summary import Summary
    from mergerisk.report.worst import WorstAttacker
    from mergerisk.statistics import Standings


@dataclass(frozen=True, eq=False)
class View:
    """A summary and what follows from it.

    Attributes:
        cells: one row per task, attack, surrogate, target and budget; seeds averaged.
        medians: ε50 by (surrogate, attack, task, target).
        risks: means by (surrogate, epsilon, rate).
        overview: what each budget can show, for ``surrogate``.
        surrogate: spoken of first: the study's first; empty without one.
        epsilon: spoken of first, in [0,1] pixel units; NaN without one.
        attack: spoken of first: the strongest; empty without one.
        accuracies: mean clean accuracy of every model.
        worst: every model under its worst attacker at that budget; models of which no ASR is known are left out.
        standing: how methods stand under the worst attacker there; None where nothing says.
        beside: the same, with the ingredients among them.
    """

    summary: Summary
    axes: Axes
    cells: pd.DataFrame
    medians: Mapping[tuple[str, str, str, str], MedianEpsilon50]
    risks: RiskTable
    overview: tuple[BudgetOverview, ...]
    surrogate: str
    epsilon: float
    attack: str
    accuracies: Mapping[str, Mean]
    worst: Mapping[str, WorstAttacker]
    standing: Standings | None
    beside: Standings | None

    def answers(self) -> tuple[Finding, ...]:
        """What a reader comes for: how often, compared with what, and which one."""
        judged = not self.summary.doubts
        return answers(
            self.worst, self.accuracies, self.axes, self.standing, self.beside, self.change, judged=judged
        )

    def findings(self) -> tuple[Finding, ...]:
        """What else the figures say."""
        return verdict(self.cells, self.medians, self.axes, self.overview, self.surrogate, self.epsilon)

    @property
    def change(self) -> str:
        """The budget that is spoken of first, in words."""
        return change(self.epsilon, self.summary.run.norm)

    def carried(self) -> str:
        """Where a mean of the cells' own ratios would say something else than relative ASR as it is shown, a ratio
        of means: a sentence, or nothing."""
        found = carried_by_few(self.cells, self.axes, self.surrogate, self.epsilon)
        if not found:
            return ""
        pairs = [f"{name} ({percent(mean)}, not {percent(ratio)})" for name, (ratio, mean) in found.items()]
        return (
            f"The mean of the cells’ own relative ASRs would be far from it for {listing(pairs)}: a few cells, in "
            f"which {holder(self.surrogate)} is rarely fooled itself, would carry it."
        )


def view_of(summary: Summary) -> View:
    """Average, compare and choose what is spoken of first."""
    axes = axes_of(summary)
    cells = average_over_seeds(summary.results)
    risks = risk_table(cells, axes)
    epsilon = default_epsilon(cells, axes)
    surrogate = axes.surrogates[0] if axes.surrogates else ""
    hardest = strongest(cells, axes, epsilon, "attack")
    medians = epsilon50_table(summary.epsilon50, axes)
    worst = worst_attackers(summary, axes, cells, risks, medians, epsilon)
    standing, beside = (
        None if found is None else rated(found, worst)
        for found in (at_budget(summary.standings, epsilon), at_budget(summary.beside_ingredients, epsilon))
    )
    return View(
        summary=summary,
        axes=axes,
        cells=cells,
        medians=medians,
        risks=risks,
        overview=budget_overview(cells, axes, surrogate, summary.standings),
        surrogate=surrogate,
        epsilon=epsilon,
        attack=hardest.name if hardest else next(iter(axes.attacks), ""),
        accuracies=mean_accuracy(summary.accuracy, axes),
        worst=worst,
        standing=standing,
        beside=beside,
    )
