"""Claims on the order of methods: a trend, the best, the worst; one block per task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from mergerisk.statistics.comparison import (
    BOOTSTRAP,
    PERCENT_MEASURES,
    Comparison,
    bare,
    column_of,
    complete,
    effect,
    made_on,
    settings_of,
)
from mergerisk.statistics.correction import holm
from mergerisk.statistics.designs import Design, make_design
from mergerisk.statistics.power import detectable_lead, detectable_rho
from mergerisk.statistics.rank_tests import conover, friedman, page, rank_picture
from mergerisk.statistics.resampling import Aggregate
from mergerisk.statistics.verdicts import Effect, Figure

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.claims import ExtremeClaim, TrendClaim


def compare_trend(claim: TrendClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    """Test a claim on an order of methods; see :func:`mergerisk.statistics.comparing.compare`."""
    column = column_of(claim.measure, denominator)
    along = column_of(claim.by, denominator) if claim.by else f"{' < '.join(claim.order)}"
    chosen = table[settings_of(claim, table)]
    words = f"{column} along {along} of targets, task by task{made_on(chosen, column)}"
    targets = claim.order or tuple(sorted(chosen["target"].unique()))
    lacking = [name for name in claim.order if name not in set(chosen["target"])]
    if lacking or len(targets) < 2:
        missing = f"{lacking[0]} is not among the targets" if lacking else "there are not two targets to compare"
        return Comparison(words, column, missing=missing)
    design, considered = _blocks(chosen, targets, column)
    everything = len(design.units)
    if claim.by:
        orders = design.matrix(table[along].to_numpy(dtype=np.float64))
        if np.isnan(orders).all():
            return Comparison(words, column, missing=f"the data hold no {claim.by}")
        design = design.select(np.flatnonzero(~np.isnan(orders).any(axis=1)))
    design, matrix = complete(design, table, column)
    tasks, left_out = len(matrix), considered - len(design.rows)
    if not tasks:
        missing = f"0 of {everything} tasks hold every target"
        return Comparison(words, column, missing=missing, left_out=left_out)
    order = (
        design.matrix(table[along].to_numpy(dtype=np.float64))
        if claim.by
        else np.broadcast_to(np.arange(len(targets), dtype=np.float64), matrix.shape)
    )
    found = page(matrix, order)
    per_block = found.rhos[~np.isnan(found.rhos)]
    measure = bare(claim.measure)
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
    return Comparison(
        words,
        column,
        f"Page's trend test ({'exact' if found.exact else 'normal approximation'})" if tasks > 1 else BOOTSTRAP,
        unit="tasks" if tasks > 1 else "images",
        units=tasks,
        rests_on=len(design.rows),
        left_out=left_out,
        statistic=found.statistic if tasks > 1 else np.nan,
        p_value=found.p_value if tasks > 1 else np.nan,
        direction=rising if claim.expect == "rising" else -rising,
        effects=(
            effect("mean rise per place in the order", float(numbers.mean()), measure),
            Effect("mean Spearman ρ per task", found.rho),
        ),
        threshold=0.0,
        supported_in=(0.0, np.inf) if claim.expect == "rising" else (-np.inf, 0.0),
        figures=(
            Figure("tasks with ρ above 0", f"{int((per_block > 0).sum())} of {len(per_block)}"),
            Figure("targets ordered", str(len(targets))),
        ),
        numbers=unit * numbers,
        unit_tasks=design.tasks,
        aggregate=None if measure == "clean_accuracy" else Aggregate(design, measure, rise),
        rows=design.rows,
        detectable=Effect("mean ρ", detectable_rho(tasks, len(targets), level=level)) if tasks > 1 else None,
        ranks=rank_picture(matrix, targets, level=level) if tasks > 1 else None,
    )


def compare_extreme(claim: ExtremeClaim, table: pd.DataFrame, denominator: str, level: float) -> Comparison:
    """Test a claim on one method against all others; see :func:`mergerisk.statistics.comparing.compare`."""
    parts = [_extreme_by(claim, measure, table, denominator, level) for measure in claim.measures]
    first = parts[0]
    if len(parts) == 1:
        return first
    words = f"{first.comparison}; and by {', '.join(part.measure for part in parts[1:])}"
    untested = next((part for part in parts if not part.test), None)
    if untested is not None:
        return Comparison(words, first.measure, missing=f"by {untested.measure}: {untested.missing}")
    if first.unit == "images":
        missing = "of a single task only one measure can be tested; give the claim one"
        return Comparison(words, first.measure, missing=missing)
    against = [part for part in parts if part.direction < 0]
    # All have to hold, so the weakest decides (Berger 1982); one against it is enough, of as many tries.
    decisive = (
        min(against, key=lambda part: part.p_value) if against else max(parts, key=lambda part: part.p_value)
    )
    p = min(1.0, decisive.p_value * len(parts)) if against else decisive.p_value
    return Comparison(
        words,
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
        also=(f"the weakest part decides: by {decisive.measure}",),
    )


def _extreme_by(
    claim: ExtremeClaim, measure: str, table: pd.DataFrame, denominator: str, level: float
) -> Comparison:
    column = column_of(measure, denominator)
    chosen = table[settings_of(claim, table)]
    words = f"{column} of {claim.method} against every other target, task by task{made_on(chosen, column)}"
    targets = tuple(sorted(chosen["target"].unique()))
    if claim.method not in targets or len(targets) < 2:
        missing = (
            f"{claim.method} is not among the targets"
            if len(targets) > 1
            else "there is nothing to compare it with"
        )
        return Comparison(words, column, missing=missing)
    accuracy = measure == "clean_accuracy"
    if table[column].isna().all():
        return Comparison(words, column, missing=f"the data hold no {measure}")
    design, considered = _blocks(chosen, targets, column)
    everything = len(design.units)
    design, matrix = complete(design, table, column)
    tasks, left_out = len(matrix), considered - len(design.rows)
    if not tasks or (tasks < 2 and accuracy):
        known = f"{tasks} of {everything} tasks hold every target"
        return Comparison(words, column, missing=known, left_out=left_out)
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
    effects = [effect(f"mean lead in {column} over {rival}", float(numbers.mean()), bare(measure))]
    if tasks > 1:
        p, direction, statistic, ranks_of, agreement = _by_ranks(sign * matrix, place, others)
        effects += [
            Effect(f"mean rank of {claim.method} by {column} (1 of {len(targets)}: {extreme})", ranks_of),
            Effect(f"Kendall's W by {column}", agreement),
        ]
    else:
        p, statistic, direction = np.nan, np.nan, int(np.sign(round(float(numbers.mean()), 12)))
    unit = 100 if bare(measure) in PERCENT_MEASURES else 1
    first = int((stats.rankdata(-sign * matrix, axis=-1)[:, place] == 1).sum())
    return Comparison(
        words,
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
            Figure(f"tasks in which {claim.method} has the {extreme} {column}", f"{first} of {len(numbers)}"),
        ),
        numbers=unit * numbers,
        unit_tasks=design.tasks,
        aggregate=None if accuracy else Aggregate(design, bare(measure), lead),
        rows=np.zeros(0, dtype=np.intp) if accuracy else design.rows,
        detectable=Effect("lead in mean rank", detectable_lead(tasks, len(targets), level=level))
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


def _blocks(chosen: pd.DataFrame, targets: tuple[str, ...], column: str) -> tuple[Design, int]:
    """One block per task: of every target the mean over those attacks, surrogates, budgets and seeds that every
    target of the task has; and how many settings there are to choose among."""
    known = chosen[chosen[column].notna() & chosen["target"].isin(targets)]
    if not len(known):
        known = chosen[chosen["target"].isin(targets)]
    cell = ["task"] if column == "clean_accuracy" else ["task", "attack", "surrogate", "epsilon", "seed"]
    here = known.groupby(cell, dropna=False, observed=True)["target"].transform("nunique")
    of_task = known.groupby("task", observed=True)["target"].transform("nunique")
    kept = known[here == of_task]
    places = {name: place for place, name in enumerate(targets)}
    position = np.array([places[name] for name in kept["target"]], dtype=np.intp)
    return make_design(kept, ["task"], position, targets), int(chosen["target"].isin(targets).sum())
