"""Accuracy against risk: who is beaten by nobody on both at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


TOLERANCE = 0.02
"""Clean accuracy, as a share, that may be given up for safety where one method is named, unless
a user says otherwise."""


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """The names no other beats, by rising accuracy.

    Args:
        points: name → (accuracy, where more is better; risk, where less is). Those with a NaN are left out.
    """
    known = {name: point for name, point in points.items() if not any(math.isnan(value) for value in point)}

    def beaten(name: str) -> bool:
        accuracy, risk = known[name]
        return any(a >= accuracy and r <= risk and (a > accuracy or r < risk) for a, r in known.values())

    return tuple(sorted((name for name in known if not beaten(name)), key=lambda name: known[name]))
