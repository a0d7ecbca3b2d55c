"""The verdict in a few plain sentences, for a reader who reads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.formatting import budget, interval, listing, percent
from mergerisk.report.pareto import pareto_front
from mergerisk.report.risk import compared

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes
    from mergerisk.report.risk import Mean, RiskTable
    from mergerisk.statistics import Standings


def in_short(
    risks: RiskTable,
    accuracy: pd.DataFrame,
    axes: Axes,
    surrogate: str,
    epsilon: float,
    norm: str,
    standing: Standings | None,
    *,
    judged: bool = True,
) -> tuple[str, ...]:
    """How large the risk is, who passes on the least, and what that costs; no sentence without figures.

    Args:
        surrogate: whose attacks are spoken of.
        epsilon: at which budget, in [0,1] pixel units.
        norm: ``linf`` or ``l2``, what the budget bounds.
        standing: how methods stand under the worst attacker there.
        judged: whether there is something to judge; nothing is said of a price of safety otherwise.
    """
    fooled = compared(risks.get((surrogate, epsilon, "asr"), {}), axes, surrogate)
    if not fooled:
        return ()
    what = "each pixel by up to" if norm == "linf" else "an image by an L2 length of up to"
    low = min(fooled, key=lambda name: fooled[name].value)
    high = max(fooled, key=lambda name: fooled[name].value)
    attacker = f"An attacker who holds {surrogate} and changes {what} {budget(epsilon)}"
    if low == high:
        sentences = [f"{attacker} fools {low} on {_rate(fooled[low])} of the images both get right."]
    else:
        spread = f"{_rate(fooled[low])} ({low}) to {_rate(fooled[high])} ({high})"
        sentences = [f"{attacker} fools the merged models on {spread} of the images that both get right."]
    if standing is None or len(standing.methods) < 2:
        return tuple(sentences)
    sentences.append(_safest(standing))
    if not judged:
        return tuple(sentences)
    accuracies = mean_accuracy(accuracy, axes)
    front = pareto_front(
        {m.name: (accuracies[m.name].value, m.value) for m in standing.methods if m.name in accuracies}
    )
    if front:
        sentences.append(
            f"{front[0]} has the highest accuracy as well as the lowest risk."
            if len(front) == 1
            else f"Safety has a price in accuracy: no method beats {listing(list(front))} on both at once."
        )
    return tuple(sentences)


def _safest(standing: Standings) -> str:
    name, whose = standing.leader.name, "the worst attacker" if standing.attackers[1:] else standing.attackers[0]
    rate = f"{percent(standing.leader.value)} {interval(standing.leader.low, standing.leader.high)}"
    if standing.clear:
        return f"{name} is the safest: {whose} fools it on {rate}, and every other method more often."
    if len(standing.alike) == len(standing.methods) - 1:
        return f"No method stands out as safest: {name} leads with {rate} under {whose}, but none is told from it."
    return (
        f"{name} is fooled the least often by {whose} ({rate}), but is not told apart from "
        f"{listing(list(standing.alike))}."
    )


def _rate(mean: Mean) -> str:
    """A rate with its interval."""
    return f"{percent(mean.value)} {interval(mean.low, mean.high)}"
