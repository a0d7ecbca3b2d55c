"""ASR against the budget: where budgets stand, and what a curve and its band go through, in every picture of them.

The page draws them in the browser, since a reader chooses whose; exports with matplotlib, audits as SVG. They
differ in ink alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def budget_places(epsilons: Sequence[float]) -> tuple[float, ...]:
    """Where budgets stand on their axis, from 0 for the smallest to 1 for the largest: by their logarithm, since
    they usually double. A single one stands in the middle.

    Args:
        epsilons: rising, above 0.
    """
    if len(epsilons) < 2:
        return (0.5,) * len(epsilons)
    low, high = math.log(epsilons[0]), math.log(epsilons[-1])
    return tuple((math.log(epsilon) - low) / (high - low) for epsilon in epsilons)


class Point(NamedTuple):
    """A curve at one budget: its place on the axis, ASR and the ends of its interval, in [0, 1]."""

    place: float
    asr: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """ASR of one attacker on one model, by rising budget, without budgets at which it is not known."""

    points: tuple[Point, ...]

    @classmethod
    def of(cls, points: Iterable[Point]) -> Curve:
        """A curve through the points that are known."""
        return cls(tuple(point for point in points if not math.isnan(point.asr)))

    @property
    def band(self) -> tuple[Point, ...]:
        """The points whose interval is known."""
        return tuple(point for point in self.points if not math.isnan(point.low) and not math.isnan(point.high))


@dataclass(frozen=True)
class Frame:
    """Where curves are drawn in an SVG, in its units; shares of 0 and 1 stand at ``bottom`` and ``top``.

    Attributes:
        left: edge.
        right: likewise.
        top: likewise.
        bottom: likewise.
        margin: between either side and the outermost budgets.
    """

    left: float
    right: float
    top: float
    bottom: float
    margin: float

    def x(self, place: float) -> float:
        """Of a place on the axis of budgets."""
        return round(self.left + self.margin + place * (self.right - self.left - 2 * self.margin), 1)

    def y(self, share: float) -> float:
        """Of an ASR."""
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def line(self, curve: Curve) -> str:
        """A path through the curve's points."""
        return _path([(self.x(point.place), self.y(point.asr)) for point in curve.points])

    def band(self, curve: Curve) -> str:
        """A path around the intervals; empty where fewer than two are known."""
        known = curve.band
        if len(known) < 2:
            return ""
        above = [(self.x(point.place), self.y(point.high)) for point in known]
        below = [(self.x(point.place), self.y(point.low)) for point in reversed(known)]
        return f"{_path([*above, *below])}Z"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
