"""Claims tested again on ε50, which does not saturate where ASR does.

An ε50 below the smallest measured budget, or above the largest, is known only to lie there: values are compared by
their order, all of one end tied. So of pairs the share that differ one way is judged over tasks, and methods by
their ranks within tasks. Of a single task nothing is tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from mergerisk.statistics.claims import Claim, ExtremeClaim, PairedClaim, RateClaim, TrendClaim
from mergerisk.statistics.comparison import Comparison, bare, settings_of, task_means
from mergerisk.statistics.correction import holm
from mergerisk.statistics.curves import crossings
from mergerisk.statistics.designs import Design, make_design
from mergerisk.statistics.means import pair_design
from mergerisk.statistics.rank_tests import conover, friedman, page, signed_rank
from mergerisk.statistics.table_set import IDENTITY
from mergerisk.statistics.verdicts import Effect

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


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


def compare_epsilon50(claim: Claim, curves: pd.DataFrame | None) -> Comparison | None:
    """The claim's test on ε50; None where ε50 cannot speak to it.

    Margins are left out, as is ``where``'s choice of budgets: an ε50 is of them all.
    """
    if curves is None:
        return None
    if "epsilon" in claim.where:
        claim = claim.model_copy(update={"where": {k: v for k, v in claim.where.items() if k != "epsilon"}})
    if isinstance(claim, RateClaim):
        return _rate(claim, curves)
    if isinstance(claim, PairedClaim):
        return _paired(claim, curves)
    if isinstance(claim, TrendClaim):
        return _trend(claim, curves)
    return _extreme(claim, curves) if isinstance(claim, ExtremeClaim) else None


def _rate(claim: RateClaim, curves: pd.DataFrame) -> Comparison | None:
    """Whether targets are fooled at smaller budgets than their surrogates."""
    even = {"relative_asr": 1.0, "delta_asr": 0.0}.get(bare(claim.measure))
    if even is None or claim.against != even or claim.expect == "same":
        return None
    chosen = curves[settings_of(claim, curves)]
    pairs = chosen[["weakness", "surrogate_weakness"]].to_numpy(dtype=np.float64)
    return _by_signs(claim, pairs, chosen["task"].to_numpy(dtype=object))


def _paired(claim: PairedClaim, curves: pd.DataFrame) -> Comparison | None:
    named = {*claim.first, *claim.second}
    if bare(claim.measure) not in {"asr", "relative_asr", "delta_asr"} or "epsilon" in named or claim.against != 0:
        return None
    if claim.expect == "same":
        return None
    design = pair_design(claim, curves)
    return _by_signs(claim, design.medians(curves["weakness"].to_numpy(dtype=np.float64)), design.tasks)


def _by_signs(
    claim: RateClaim | PairedClaim, pairs: NDArray[np.float64], tasks: NDArray[np.object_]
) -> Comparison | None:
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
    return Comparison(
        "ε50",
        "epsilon50",
        "Wilcoxon signed-rank on each task's balance",
        unit="tasks",
        units=len(set(tasks)),
        rests_on=len(pairs),
        of="pairs",
        p_value=found.p_value,
        direction=int(np.sign(found.rank_biserial)) * (1 if higher else -1),
        effects=(Effect(f"share fooled at a smaller budget, of pairs that differ ({ties} tie)", share),),
        threshold=0.0,
        supported_in=(0.0, np.inf) if higher else (-np.inf, 0.0),
        numbers=signs,
        unit_tasks=tasks,
    )


def _blocks(claim: TrendClaim | ExtremeClaim, curves: pd.DataFrame) -> tuple[Design, tuple[str, ...]] | None:
    """One block per task, of every target the lower median of its curves, since infinite values have no mean."""
    chosen = curves[settings_of(claim, curves)]
    ordered = claim.order if isinstance(claim, TrendClaim) else ()
    targets = ordered or tuple(sorted(chosen["target"].unique()))
    if len(targets) < 2 or not set(claim.needs) <= set(chosen["target"]):
        return None
    places = {name: place for place, name in enumerate(targets)}
    position = np.array([places.get(name, -1) for name in chosen["target"]], dtype=np.intp)
    return make_design(chosen, ["task"], position, targets), targets


def _trend(claim: TrendClaim, curves: pd.DataFrame) -> Comparison | None:
    laid_out = _blocks(claim, curves)
    if laid_out is None or bare(claim.measure) == "clean_accuracy" or claim.by not in {None, "clean_accuracy"}:
        return None
    design, targets = laid_out
    matrix = design.medians(curves["weakness"].to_numpy(dtype=np.float64))
    order = (
        design.matrix(curves["clean_accuracy"].to_numpy(dtype=np.float64))
        if claim.by
        else np.broadcast_to(np.arange(len(targets), dtype=np.float64), matrix.shape)
    )
    kept = ~(np.isnan(matrix) | np.isnan(order)).any(axis=1)
    if kept.sum() < 2:
        return None
    found = page(_finite(matrix[kept]), order[kept])
    rising = 1 if found.p_rising < found.p_falling else -1 if found.p_falling < found.p_rising else 0
    return Comparison(
        "ε50",
        "epsilon50",
        "Page's trend test",
        unit="tasks",
        units=found.blocks,
        rests_on=len(design.rows),
        statistic=found.statistic,
        p_value=found.p_value,
        direction=rising if claim.expect == "rising" else -rising,
        effects=(Effect("mean Spearman ρ per task", found.rho),),
        threshold=0.0,
        supported_in=(0.0, np.inf) if claim.expect == "rising" else (-np.inf, 0.0),
        numbers=found.rhos[~np.isnan(found.rhos)],
        unit_tasks=design.tasks[kept][~np.isnan(found.rhos)],
    )


def _extreme(claim: ExtremeClaim, curves: pd.DataFrame) -> Comparison | None:
    laid_out = _blocks(claim, curves)
    if laid_out is None or bare(claim.measures[0]) == "clean_accuracy":
        return None
    design, targets = laid_out
    matrix = design.medians(curves["weakness"].to_numpy(dtype=np.float64))
    kept = ~np.isnan(matrix).any(axis=1)
    matrix = _finite(matrix[kept])
    if len(matrix) < 2:
        return None
    sign = 1.0 if claim.kind == "worst" else -1.0
    found, place = friedman(sign * matrix), targets.index(claim.method)
    others = np.array([column for column in range(len(targets)) if column != place])
    pairwise = conover(sign * matrix)[place, others]
    ahead = found.mean_ranks[others] < found.mean_ranks[place]
    if ahead.any():
        p, direction = max(found.p_value, float(holm(pairwise)[ahead].min())), -1
    else:
        p, direction = max(found.p_value, float(pairwise.max())), 1
    nearest = int(others[int(np.argmin(found.mean_ranks[others]))])
    leads = sign * (matrix[:, place] - matrix[:, nearest])
    return Comparison(
        "ε50",
        "epsilon50",
        "Friedman, then Conover against every other",
        unit="tasks",
        units=len(matrix),
        rests_on=len(design.rows),
        statistic=found.statistic,
        p_value=p,
        direction=direction,
        effects=(Effect(f"mean lead in rank over {targets[nearest]}", float(leads.mean())),),
        threshold=0.0,
        supported_in=(0.0, np.inf),
        numbers=leads,
        unit_tasks=design.tasks[kept],
    )


def _finite(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks in place of values, which keep their order and their ties."""
    return np.asarray(stats.rankdata(matrix, axis=1), dtype=np.float64)
