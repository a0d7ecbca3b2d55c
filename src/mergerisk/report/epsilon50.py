"""ε50 with its censored values: medians that keep "below the smallest" and "not reached" as answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.formatting import BINS, MISSING, budget, colour_bin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from mergerisk.report.cells import Axes

ALL = "*"
"""Stands for every attack, or every task, in the keys of `epsilon50_table`."""


@dataclass(frozen=True)
class MedianEpsilon50:
    """A median ε50.

    Attributes:
        value: in [0,1] pixel units; −inf if below the smallest budget, +inf if not reached, NaN if unknown.
        low: median of the lower ends (0 at least).
        high: median of the upper ends (may be inf).
        curves: how many curves it rests on.
    """

    value: float
    low: float
    high: float
    curves: int


@dataclass(frozen=True)
class CurveEpsilon50:
    """ε50 of one curve: ∓inf where censored, NaN without images; ``low`` and ``high`` bound it."""

    value: float
    low: float
    high: float


def censored_median(values: Sequence[float]) -> float:
    """Median where −inf and +inf stand for censored values; NaN of none.

    With an even number, the two middle values are averaged when both are finite; else the lower one is taken,
    which errs on the side of risk.
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    upper = ordered[len(ordered) // 2]
    lower = ordered[(len(ordered) - 1) // 2]
    return (lower + upper) / 2 if math.isfinite(lower) and math.isfinite(upper) else lower


def median_epsilon50(curves: Iterable[CurveEpsilon50]) -> MedianEpsilon50:
    """Median over curves (attacks, tasks, seeds), leaving out those without images."""
    counted = [curve for curve in curves if not math.isnan(curve.value)]
    return MedianEpsilon50(
        censored_median([curve.value for curve in counted]),
        censored_median([curve.low for curve in counted]),
        censored_median([curve.high for curve in counted]),
        len(counted),
    )


def epsilon50_table(frame: pd.DataFrame, axes: Axes) -> dict[tuple[str, str, str, str], MedianEpsilon50]:
    """Medians by (surrogate, attack or `ALL`, task or `ALL`, target); absent where there is no row."""
    groups: dict[tuple[str, str, str, str], list[CurveEpsilon50]] = {}
    names = [frame[name].tolist() for name in ("surrogate", "attack", "task", "target", "status")]
    numbers = [frame[name].astype(float).tolist() for name in ("epsilon50", "low", "high")]
    for surrogate, attack, task, target, status, value, low, high in zip(*names, *numbers, strict=True):
        if surrogate not in axes.surrogates or target not in axes.targets:
            continue
        curve = CurveEpsilon50(
            {"measured": value, "below_smallest": -math.inf, "not_reached": math.inf}.get(status, math.nan),
            0.0 if math.isnan(low) else low,
            math.inf if math.isnan(high) else high,
        )
        for one_attack in (attack, ALL):
            for one_task in (task, ALL):
                groups.setdefault((surrogate, one_attack, one_task, target), []).append(curve)
    return {key: median_epsilon50(curves) for key, curves in groups.items()}


def epsilon50_text(value: float, epsilons: Sequence[float]) -> str:
    """``1.7/255``, ``<0.5/255`` or ``>8/255``; a dash if unknown."""
    if math.isnan(value) or not epsilons:
        return MISSING
    if math.isinf(value):
        return f"<{budget(min(epsilons))}" if value < 0 else f">{budget(max(epsilons))}"
    steps = 255 * value
    return f"{steps:.{2 if steps < 0.995 else 1 if steps < 9.95 else 0}f}/255"


def epsilon50_range(found: MedianEpsilon50, epsilons: Sequence[float]) -> str:
    """The interval in words, its ends clipped to what the measured budgets can show."""
    if not found.curves or not epsilons:
        return ""
    low = f"below {budget(min(epsilons))}" if found.low < min(epsilons) else epsilon50_text(found.low, epsilons)
    high = f"above {budget(max(epsilons))}" if found.high > max(epsilons) else epsilon50_text(found.high, epsilons)
    return f"{low} to {high}"


def epsilon50_bin(value: float, epsilons: Sequence[float]) -> int | None:
    """Colour of an ε50: the highest risk below the smallest budget, the lowest where it is not reached."""
    if math.isnan(value) or not epsilons:
        return None
    if math.isinf(value):
        return BINS - 1 if value < 0 else 0
    low, high = math.log(min(epsilons)), math.log(max(epsilons))
    position = colour_bin(math.log(max(value, 1e-9)), low, high)
    # the two end colours are kept for censored values when the scale has a middle
    return None if position is None else min(BINS - 2, max(1, BINS - 1 - position))
