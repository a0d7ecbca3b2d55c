"""The verdict in a few plain sentences, for a reader who reads nothing else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.formatting import budget, listing, percent
from mergerisk.report.pareto import pareto_front
from mergerisk.report.risk import compared
from mergerisk.report.verdict import Leader, leader

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes
    from mergerisk.report.risk import RiskTable


def in_short(
    risks: RiskTable, accuracy: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float, norm: str
) -> tuple[str, ...]:
    """How large the risk is, who passes on the least, and what that costs; no sentence without figures.

    Args:
        surrogate: whose attacks are spoken of.
        epsilon: at which budget, in [0,1] pixel units.
        norm: ``linf`` or ``l2``, what the budget bounds.
    """
    fooled = compared(risks.get((surrogate, epsilon, "asr"), {}), axes, surrogate)
    relative = compared(risks.get((surrogate, epsilon, "relative"), {}), axes, surrogate)
    if not fooled:
        return ()
    what = "each pixel by up to" if norm == "linf" else "an image by an L2 length of up to"
    low = min(fooled, key=lambda name: fooled[name].value)
    high = max(fooled, key=lambda name: fooled[name].value)
    attacker = f"An attacker who holds {surrogate} and changes {what} {budget(epsilon)}"
    if low == high:
        sentences = [f"{attacker} fools {low} on {percent(fooled[low].value)} of the images both get right."]
    else:
        mean = math.fsum(found.value for found in fooled.values()) / len(fooled)
        spread = f"from {percent(fooled[low].value)} ({low}) to {percent(fooled[high].value)} ({high})"
        all_of_them = (
            f"{attacker} fools the merged models on {percent(mean)} of the images both get right: {spread}."
        )
        sentences = [all_of_them]
    safest = leader(relative, lowest=True)
    if safest is not None and safest.ranked > 1:
        sentences.append(_safest(safest))
    accuracies = mean_accuracy(accuracy, axes)
    front = pareto_front({name: (accuracies[name].value, mean.value) for name, mean in relative.items()})
    if len(relative) > 1 and front:
        sentences.append(
            f"{front[0]} has the highest accuracy as well as the lowest risk."
            if len(front) == 1
            else f"Safety has a price in accuracy: no method beats {listing(list(front))} on both at once."
        )
    return tuple(sentences)


def _safest(found: Leader) -> str:
    if found.clear:
        return f"{found.name} passes on the least of the surrogate’s risk, and no other interval reaches its own."
    if len(found.rivals) == found.ranked - 1:
        return f"No method stands out as safest: {found.name} leads, but every other interval overlaps its own."
    rivals = listing(list(found.rivals))
    return f"{found.name} passes on the least of the surrogate’s risk, but is not told apart from {rivals}."
