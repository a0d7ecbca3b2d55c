"""The picture of how methods stand: ASR under the worst attacker on an axis, and who cannot be told apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.report.formatting import budget, listing, percent, plural
from mergerisk.report.naming import holder

if TYPE_CHECKING:
    from mergerisk.statistics import Standings


@dataclass(frozen=True)
class Place:
    """Where one method is drawn: on the axis at ``value``, its name on the ``left`` or right, ``row`` down."""

    name: str
    value: float
    left: bool
    row: int


@dataclass(frozen=True)
class Bar:
    """A group that cannot be told apart: from its lowest to its highest ASR, ``row`` bars below the axis."""

    low: float
    high: float
    row: int


def places(found: Standings) -> tuple[Place, ...]:
    """The safer half's names go down the left side, safest first; the others' down the right, riskiest first."""
    half = (len(found.methods) + 1) // 2
    return tuple(
        Place(
            method.name,
            method.value,
            left=place < half,
            row=place if place < half else len(found.methods) - 1 - place,
        )
        for place, method in enumerate(found.methods)
    )


def bars(found: Standings) -> tuple[Bar, ...]:
    """One bar per group of two or more, on the first row where it touches no other."""
    value = {method.name: method.value for method in found.methods}
    spans = sorted((value[clique[0]], value[clique[-1]]) for clique in found.cliques)
    ends: list[float] = []
    drawn = []
    for low, high in spans:
        row = next((i for i, end in enumerate(ends) if end < low), len(ends))
        ends[row : row + 1] = [high]
        drawn.append(Bar(low, high, row))
    return tuple(drawn)


def ticks(found: Standings) -> tuple[float, ...]:
    """Even shares that span all methods, five to nine of them."""
    low, high = found.methods[0].value, found.methods[-1].value
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 6)
    first = max(0, math.floor(low / step - 1e-9))
    last = min(round(1 / step), max(math.ceil(high / step + 1e-9), first + 1))
    first = min(first, last - 1)
    return tuple(step * i for i in range(first, last + 1))


WIDTH, SIDE, TOP, ROW, BAR_ROW = 860, 235, 62, 23, 9


def standing_svg(found: Standings) -> Markup:
    """The picture for the page: colours come from its style sheet, names are escaped."""
    drawn, placed, marks = bars(found), places(found), ticks(found)
    # 5 px at each end, so that a mark at the very end does not touch a name's line
    left, right = SIDE + 5, WIDTH - SIDE - 5

    def x(value: float) -> float:
        return left + (value - marks[0]) / (marks[-1] - marks[0]) * (right - left)

    bar_rows = max((bar.row + 1 for bar in drawn), default=0)
    names_top = TOP + 16 + BAR_ROW * bar_rows + 12
    height = names_top + ROW * max(place.row for place in placed) + 14
    parts = [
        f'<svg class="cd" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="cd-title cd-desc">',
        '<title id="cd-title">ASR under the worst attacker, and which methods cannot be told apart</title>',
        f'<desc id="cd-desc">{escape(in_words(found))}</desc>',
        f'<text x="{left}" y="11">ASR under the worst attacker</text>',
        f'<path class="axis" d="M{left},{TOP}H{right}"/>',
    ]
    for mark in marks:
        parts.append(f'<path class="axis" d="M{x(mark):.1f},{TOP}v-6"/>')
        text = percent(mark, 0 if marks[1] - marks[0] >= 0.01 else 1)
        parts.append(f'<text x="{x(mark):.1f}" y="{TOP - 10}" text-anchor="middle">{text}</text>')
    for place in placed:
        y = names_top + ROW * place.row
        at, edge, anchor = x(place.value), *((SIDE - 8, "end") if place.left else (WIDTH - SIDE + 8, "start"))
        parts.append(f'<path class="cd-line" d="M{at:.1f},{TOP}V{y:.1f}H{edge + (4 if place.left else -4)}"/>')
        parts.append(f'<circle class="cd-mark" cx="{at:.1f}" cy="{TOP}" r="3.5"/>')
        parts.append(
            f'<text class="name" x="{edge}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(_short(place.name))} '
            f'<tspan class="cd-rank">{percent(place.value, 1)}</tspan></text>'
        )
    for bar in drawn:
        y = TOP + 14 + BAR_ROW * bar.row
        parts.append(f'<path class="cd-bar" d="M{x(bar.low) - 4:.1f},{y}H{x(bar.high) + 4:.1f}"/>')
    return Markup("".join([*parts, "</svg>"]))


def in_words(found: Standings) -> str:
    """The picture as a sentence, for those who do not see it."""
    values = ", ".join(
        f"{method.name} {percent(method.value, 1)} [{100 * method.low:.1f}, {100 * method.high:.1f}]"
        for method in found.methods
    )
    groups = found.cliques
    same = (
        "; not told apart: " + "; ".join(", ".join(clique) for clique in groups)
        if groups
        else "; every pair is told apart"
    )
    return f"ASR under the worst attacker, safest first: {values}{same}."


def basis(found: Standings) -> str:
    """What was compared, and how, in a sentence."""
    names = [holder(name) for name in found.attackers]
    whose = (
        f"the worse of {listing(names)}"
        if len(names) == 2
        else f"the worst of {listing(names)}"
        if names[1:]
        else names[0]
    )
    return (
        f"Attacks made on {whose} at ε = {budget(found.epsilon)}, mean over {plural(found.tasks, 'task')} and "
        f"{plural(found.attacks, 'attack')}, {plural(found.images, 'image')}. Methods are compared pair by "
        f"pair on the same images (bootstrap), corrected for {plural(len(found.pairs), 'pair')} (Holm)."
    )


def _short(name: str, most: int = 26) -> str:
    """A name that fits beside the axis; the whole one is in the picture's description."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
