"""Clean accuracy against ε50 under the worst attacker; where those who do not know leave a model is its ghost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.report.formatting import budget, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.report.prices import PriceList

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 64, 20, 16, 48
_ROW = 22
"""Of the names beside the picture's points, in pixels."""


@dataclass(frozen=True)
class Arrow:
    """A model of the picture.

    Attributes:
        name: of the target.
        accuracy: clean.
        ghost: ε50 under the worst attacker who does not know of the defense; None of what nothing defends.
        worst: ε50 under the worst attacker.
        passed: whether every check did; None likewise.
        reference: whether it is only there to be compared with.
        best: whether no other beats it on both axes; a line joins them.
    """

    name: str
    accuracy: float
    ghost: float | None
    worst: float
    passed: bool | None
    reference: bool = False
    best: bool = False


def arrows(found: PriceList) -> tuple[Arrow, ...]:
    """Defended targets, behind them what is defended."""
    drawn: list[Arrow] = []
    base: dict[str, Arrow] = {}
    for offer in found.offers:
        priced, worst, unaware = offer.priced, offer.priced.worst, offer.priced.unaware
        if worst is None or math.isnan(worst.epsilon50.value) or math.isnan(priced.accuracy.defended.value):
            continue
        ghost = None if unaware is None else unaware.epsilon50.value
        drawn.append(
            Arrow(
                priced.target,
                priced.accuracy.defended.value,
                ghost,
                worst.epsilon50.value,
                bool(offer.checks) and not offer.not_shown,
            )
        )
        if not math.isnan(worst.undefended_epsilon50.value):
            base.setdefault(
                priced.undefended,
                Arrow(
                    priced.undefended,
                    priced.accuracy.undefended.value,
                    None,
                    worst.undefended_epsilon50.value,
                    None,
                ),
            )
    return (*drawn, *base.values())


def price_svg(found: PriceList) -> Markup | None:
    """The picture of a price list; see :func:`accuracy_svg`."""
    return accuracy_svg(arrows(found), found.epsilons)


def accuracy_svg(drawn: Sequence[Arrow], epsilons: Sequence[float]) -> Markup | None:
    """The picture: a hollow mark where the unaware leave a model, an arrow to where the worst attacker does, full
    where every check passed; a diamond for what nothing defends. None without a figure."""
    if not drawn:
        return None
    names = sorted(drawn, key=lambda one: -one.accuracy)
    height = TOP + BOTTOM + max(240, _ROW * len(drawn))
    low, high = epsilons[0] / 1.5, epsilons[-1] * 1.5
    floor, ceiling = min(one.accuracy for one in drawn), max(one.accuracy for one in drawn)
    room = max(0.02, (ceiling - floor) * 0.1)
    floor, ceiling = floor - room, ceiling + room
    right = WIDTH - RIGHT - 210  # names stand at the right

    def x(half: float) -> float:
        share = math.log(min(max(half, low), high) / low) / math.log(high / low)
        return LEFT + share * (right - LEFT)

    def y(accuracy: float) -> float:
        return TOP + (ceiling - accuracy) / (ceiling - floor) * (height - BOTTOM - TOP)

    foot = height - BOTTOM
    about = "Clean accuracy against the budget that fools half under the worst attacker"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{about}">',
        f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{right}"/>',
    ]
    for epsilon in epsilons:
        parts.append(f'<path class="rule" d="M{x(epsilon):.1f},{TOP}V{foot}"/>')
        parts.append(f'<text x="{x(epsilon):.1f}" y="{foot + 18}" text-anchor="middle">{budget(epsilon)}</text>')
    for accuracy in _round_shares(floor, ceiling):
        parts.append(f'<path class="axis" d="M{LEFT},{y(accuracy):.1f}h-5"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y(accuracy) + 4:.1f}" text-anchor="end">{percent(accuracy)}</text>'
        )
    parts.append(
        f'<text class="name" x="{(LEFT + right) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        "ε50 under the worst attacker: safer →</text>"
    )
    parts.append(
        f'<text class="name" x="14" y="{(TOP + foot) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + foot) / 2:.0f})">clean accuracy →</text>'
    )
    joined = sorted((one for one in drawn if one.best), key=lambda one: one.worst)
    if len(joined) > 1:
        points = "L".join(f"{x(one.worst):.1f},{y(one.accuracy):.1f}" for one in joined)
        parts.append(f'<path class="front" d="M{points}"/>')
    rows = _spread([y(one.accuracy) for one in names], TOP + 8, foot)
    for place, (one, row) in enumerate(zip(names, rows, strict=True)):
        parts.append(f'<g class="{"reference" if one.reference else f"k{place % 8}"}">')
        here, there = x(one.worst), y(one.accuracy)
        parts.append(
            f'<path class="leader" d="M{here:.1f},{there:.1f}L{right + 6},{row:.1f}"/>'
            f'<text class="name" x="{right + 10}" y="{row + 4:.1f}">{escape(one.name)}</text>'
        )
        note = f"<title>{escape(_note(one))}</title>"
        if one.ghost is not None and abs(x(one.ghost) - here) > 1:
            ghost = x(one.ghost)
            head = 7 if ghost > here else -7
            parts.append(f'<path class="ghost" d="M{ghost:.1f},{there:.1f}H{here + head:.1f}"/>')
            parts.append(
                f'<path class="arrow" d="M{here + head / 1.4:.1f},{there:.1f}l{head:.0f},-4v8z"/>'
                f'<circle class="hollow ghost" cx="{ghost:.1f}" cy="{there:.1f}" r="5">{note}</circle>'
            )
        if one.passed is None:
            parts.append(f'<path class="mark" d="M{here:.1f},{there - 6:.1f}l6,6l-6,6l-6,-6z">{note}</path>')
        else:
            shape = "mark" if one.passed else "hollow"
            parts.append(f'<circle class="{shape}" cx="{here:.1f}" cy="{there:.1f}" r="5.5">{note}</circle>')
            if not one.passed:
                parts.append(f'<path class="ghost" d="M{here - 3:.1f},{there - 3:.1f}l6,6m0,-6l-6,6"/>')
        parts.append("</g>")
    return Markup("".join([*parts, "</svg>"]))


def _note(one: Arrow) -> str:
    ghost = "" if one.ghost is None else f"; under those who do not know {_half(one.ghost)}"
    return f"{one.name}: clean accuracy {percent(one.accuracy, 1)}, ε50 {_half(one.worst)}{ghost}"


def _half(value: float) -> str:
    if value in {0, math.inf}:
        return "below the smallest budget" if value == 0 else "above the largest budget"
    return budget(value)


def _round_shares(low: float, high: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 7)
    return [step * place for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _spread(wanted: Sequence[float], top: float, foot: float) -> list[float]:
    """Rows for names, in the order given, as near to where they are wanted as they fit."""
    rows: list[float] = []
    for place in wanted:
        rows.append(max(place, rows[-1] + _ROW * 0.75 if rows else top))
    for place in range(len(rows) - 1, -1, -1):
        rows[place] = min(rows[place], (rows[place + 1] - _ROW * 0.75) if place + 1 < len(rows) else foot)
    return rows
