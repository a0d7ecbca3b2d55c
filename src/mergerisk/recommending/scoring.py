"""Where recipes stand on both axes: clean accuracy, and the budget that fools half under the worst attacker."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mergerisk.report.pareto import TOLERANCE, pareto_front
from mergerisk.statistics.curves import crossings
from mergerisk.statistics.paired_attacks import Seen
from mergerisk.statistics.priced import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.statistics.priced import Holder


_BASE = "pretrained"
"""What results call the base as it is."""


class Score(NamedTuple):
    """Where a recipe stands; more is better on both axes.

    Attributes:
        accuracy: clean, mean over tasks.
        safety: ε50 under the worst attacker, continued beyond the measured budgets; see :func:`continued`. 0 of a
            recipe that is less accurate than the base as it is, which nobody would merge for: one that always
            gives the same answer is never fooled.
    """

    accuracy: float
    safety: float


class Tried(NamedTuple):
    """A recipe that was tried.

    Attributes:
        number: of the trial, from 0.
        recipe: that was tried.
        score: on the images that it is chosen by.
    """

    number: int
    recipe: Recipe
    score: Score


def scores(
    outcomes: pd.DataFrame, clean: pd.DataFrame, labels: Iterable[str], holders: Sequence[Holder]
) -> dict[str, Score | None]:
    """Where targets stand, by label; None of one that no attack can be counted on.

    Args:
        outcomes: per image; see :mod:`mergerisk.transfer.rates`.
        clean: predictions on images that were not attacked, those of the base among them.
        labels: of the targets.
        holders: the attackers; the worst of those counts who hold no merge.
    """
    wanted = [*labels]
    seen = Seen(outcomes[outcomes["target"].isin(wanted)], seed=0, resamples=1)
    right = clean.assign(right=clean["prediction"] == clean["label"])
    accuracy = (
        right.groupby(["model", "task"], observed=True)["right"].mean().groupby("model", observed=True).mean()
    )
    found: dict[str, Score | None] = {}
    for label in wanted:
        worst = worst_public(seen, label, holders)
        rates = None if worst is None else seen.rates(label, worst)
        if rates is None or np.isnan(rates).any():
            found[label] = None
        else:
            worth = accuracy[label] >= accuracy[_BASE]
            found[label] = Score(float(accuracy[label]), continued(rates, seen.epsilons) if worth else 0.0)
    return found


def worst_public(seen: Seen, target: str, holders: Sequence[Holder]) -> str | None:
    """The surrogate of the worst attacker of a target who holds no merge; None if nobody attacks it."""
    return seen.worst(
        target, [one.surrogate for one in holders if one.kind in PUBLIC and one.target in {None, target}]
    )


def continued(rates: NDArray[np.float64], epsilons: NDArray[np.float64]) -> float:
    """ε50, where ASR crosses one half. Where it does not, the nearest budget, changed by how far its ASR is from
    one half: a number that falls as ASR rises, so that recipes beyond the measured budgets can be ordered too.

    Args:
        rates: ASR by budget.
        epsilons: the budgets, rising.
    """
    half = float(crossings(rates[None], epsilons)[0])
    if math.isinf(half):
        return float(epsilons[-1] * (1.5 - rates[-1]))
    return half if half > 0 else float(epsilons[0] * (1.5 - rates[0]))


def front(tried: Iterable[Tried]) -> tuple[Tried, ...]:
    """The recipes that no other beats on both axes, each once, the most accurate first."""
    once: dict[Recipe, Tried] = {}
    for one in tried:
        once.setdefault(one.recipe, one)
    by_number = {str(one.number): one for one in once.values()}
    points = {name: (one.score.accuracy, -one.score.safety) for name, one in by_number.items()}
    return tuple(by_number[name] for name in reversed(pareto_front(points)))


def recommended(best: Sequence[Tried], tolerance: float = TOLERANCE) -> Tried:
    """The safest recipe of a front that gives up at most so much clean accuracy."""
    most = max(one.score.accuracy for one in best)
    return max((one for one in best if one.score.accuracy >= most - tolerance), key=lambda one: one.score.safety)


def chosen(best: Sequence[Tried], count: int) -> tuple[Tried, ...]:
    """The recipes of a front that are measured: the recommended one, then the ends, and others between them so
    that the widest gap in clean accuracy is parted each time; in the front's order."""
    kept = [recommended(best)]
    for end in (best[0], best[-1]):
        if end not in kept and len(kept) < count:
            kept.append(end)
    while len(kept) < min(count, len(best)):
        left = [one for one in best if one not in kept]
        kept.append(max(left, key=lambda one: min(_gap(one, other) for other in kept)))
    return tuple(one for one in best if one in kept)


def _gap(one: Tried, other: Tried) -> float:
    return abs(one.score.accuracy - other.score.accuracy)
