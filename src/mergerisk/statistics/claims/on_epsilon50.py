"""Claims tested again on ε50, which does not saturate where ASR does.

An ε50 below the smallest measured budget, or above the largest, is known only to lie there: values are compared by
their order, all of one end tied. So of pairs the share that differ one way is judged over tasks, and methods by
their ranks within tasks. Of a single task nothing is tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from mergerisk.statistics.cell_means import Design, make_design
from mergerisk.statistics.claim_tables import IDENTITY
from mergerisk.statistics.claims.testing import ClaimTest, settings_of, task_means
from mergerisk.statistics.curves import crossings
from mergerisk.statistics.facts import fact
from mergerisk.statistics.rank_tests import signed_rank
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claims.claim import Claim
    from mergerisk.statistics.claims.means import NumberClaim
    from mergerisk.statistics.claims.ranks import RankedClaim


def curve_table(rates: pd.DataFrame, denominator: str) -> pd.DataFrame | None:
    """One row per curve: a setting without its budget.

    Args:
        rates: :class:`mergerisk.statistics.Tables`' rates.
        denominator: ``both_correct`` or ``all``.

    Returns:
        Names and roles as in the table of rates, ``clean_accuracy``, and ``weakness``, ``surrogate_weakness``:
        −ε50 of target and surrogate, 0 if below the smallest budget, −∞ if not reached, NaN where unknown. None if
        there are not two budgets.
    """
    if rates["epsilon"].nunique() < 2:
        return None
    ending = "_all" if denominator == "all" else ""
    keys = [name for name in IDENTITY if name != "epsilon"]
    known = rates[rates["epsilon"].notna()]
    groups = known.groupby(keys, sort=True)
    table = (
        groups[["method", "correction", "surrogate_role", "target_role", "clean_accuracy"]].first().reset_index()
    )
    budgets, column = np.unique(known["epsilon"].to_numpy(dtype=np.float64), return_inverse=True)
    row = groups.ngroup().to_numpy()
    for name, rate in (("weakness", "asr"), ("surrogate_weakness", "surrogate_asr")):
        curves = np.full((len(table), len(budgets)), np.nan)
        curves[row, column] = known[f"{rate}{ending}"].to_numpy(dtype=np.float64)
        table[name] = -_epsilon50(curves, budgets)
    table["epsilon"] = np.nan
    return table


def _epsilon50(curves: NDArray[np.float64], budgets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Curves × budgets → ε50, each over the budgets that were measured; NaN with fewer than two."""
    found = np.full(len(curves), np.nan)
    measured = ~np.isnan(curves)
    patterns, which = np.unique(measured, axis=0, return_inverse=True)
    for position, pattern in enumerate(patterns):
        if pattern.sum() > 1:
            rows = np.flatnonzero(which.ravel() == position)
            found[rows] = crossings(curves[np.ix_(rows, np.flatnonzero(pattern))], budgets[pattern])
    return found


def on_epsilon50(claim: Claim, curves: pd.DataFrame | None) -> ClaimTest | None:
    """The claim's test on ε50; None where ε50 cannot speak to it.

    Margins are left out, as is ``where``'s choice of budgets: an ε50 is of them all.
    """
    if curves is None:
        return None
    if "epsilon" in claim.where:
        claim = claim.model_copy(update={"where": {k: v for k, v in claim.where.items() if k != "epsilon"}})
    return claim.tested_on_epsilon50(curves)


def by_signs(claim: NumberClaim, pairs: NDArray[np.float64], tasks: NDArray[np.object_]) -> ClaimTest | None:
    """The share of pairs whose first is fooled at a smaller budget, judged over tasks."""
    known = ~np.isnan(pairs).any(axis=1)
    pairs, tasks = pairs[known], tasks[known]
    if len(set(tasks)) < 2:
        return None
    signs = (pairs[:, 0] > pairs[:, 1]).astype(np.float64) - (pairs[:, 0] < pairs[:, 1])
    above, below = int((signs > 0).sum()), int((signs < 0).sum())
    found = signed_rank(task_means(signs, tasks))
    higher = claim.expect == "higher"
    share = above / (above + below) if above + below else np.nan
    ties = len(signs) - above - below
    return ClaimTest(
        fact("epsilon50"),
        "epsilon50",
        "Wilcoxon signed-rank on each task's balance",
        unit="tasks",
        units=len(set(tasks)),
        rests_on=len(pairs),
        of="pairs",
        p_value=found.p_value,
        direction=int(np.sign(found.rank_biserial)) * (1 if higher else -1),
        effects=(Effect(fact("smaller_budget", ties=ties), share),),
        threshold=0.0,
        supported_in=(0.0, np.inf) if higher else (-np.inf, 0.0),
        numbers=signs,
        unit_tasks=tasks,
    )


def curve_blocks(
    claim: RankedClaim, curves: pd.DataFrame, order: tuple[str, ...] = ()
) -> tuple[Design, tuple[str, ...]] | None:
    """One block per task, of every target the lower median of its curves, since infinite values have no mean."""
    chosen = curves[settings_of(claim, curves)]
    targets = order or tuple(sorted(chosen["target"].unique()))
    if len(targets) < 2 or not set(claim.needs) <= set(chosen["target"]):
        return None
    places = {name: place for place, name in enumerate(targets)}
    position = np.array([places.get(name, -1) for name in chosen["target"]], dtype=np.intp)
    return make_design(chosen, ["task"], position, targets), targets


def as_ranks(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks in place of values, which keep their order and their ties."""
    return np.asarray(stats.rankdata(matrix, axis=1), dtype=np.float64)
