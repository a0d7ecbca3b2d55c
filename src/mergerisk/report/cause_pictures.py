"""Pictures of a measure against ε50: of every task and method, and of what moves when it is moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.report.epsilon50 import epsilon50_text
from mergerisk.report.formatting import budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.statistics.explaining import Explanation, Explanations, Moved, Point

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 290, 82, 12, 14, 46
SHAPES = 4
_FEW = 12
"""Changes that are drawn at most: more are in the figures."""


@dataclass(frozen=True)
class Mark:
    """A point of a picture.

    Attributes:
        x: value of the measure.
        y: ε50; 0 below the smallest budget, ∞ where none fools half.
        series: place of the method, from 0; None of null lines.
        label: what it is.
    """

    x: float
    y: float
    series: int | None
    label: str


@dataclass(frozen=True)
class Line:
    """A change, from its smallest dose to its largest.

    Attributes:
        name: of the change.
        marks: by rising dose.
    """

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Scale:
    """Where values lie: the measure along, ε50 up, with a row below or above for what was not measured.

    Attributes:
        low: of the measure, at the left.
        high: at the right.
        log: whether its scale is logarithmic: where a few values are many times the others.
        least: ε50 at the foot, as far as it was measured.
        most: at the head.
        epsilons: the measured budgets, rising.
        below: whether some are below the smallest measured budget.
        above: whether some are above the largest.
    """

    low: float
    high: float
    log: bool
    least: float
    most: float
    epsilons: tuple[float, ...]
    below: bool
    above: bool

    @classmethod
    def of(cls, marks: Sequence[Mark], epsilons: Sequence[float], halves: Sequence[float]) -> Scale:
        """That holds all marks, and the ε50s of what is drawn beside, with some room."""
        values = [mark.x for mark in marks]
        low, high = min(values), max(values)
        log = low > 0 and high > _MANY * low
        if log:
            room = (high / low) ** 0.06
            low, high = low / room, high * room
        else:
            room = (high - low) * 0.06 or max(abs(high), 1e-6) * 0.1
            low, high = low - room, high + room
        budgets = tuple(sorted(epsilons))
        known = [half for half in halves if 0 < half < math.inf] or budgets
        least, most = min(known) / _AROUND, max(known) * _AROUND
        return cls(low, high, log, least, most, budgets, 0 in halves, math.inf in halves)

    def x(self, value: float) -> float:
        """In pixels."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """In pixels; larger budgets are higher."""
        return (HEIGHT - BOTTOM) - self._share(value) * (HEIGHT - BOTTOM - TOP)

    def _share(self, value: float) -> float:
        """Where an ε50 stands, from 0 at the bottom to 1; what was not measured stands outside what was."""
        if value <= 0:
            return 0.05
        if value == math.inf:
            return 0.95
        inside = math.log(value / self.least) / math.log(self.most / self.least)
        bottom, top = 0.15 if self.below else 0.0, 0.85 if self.above else 1.0
        return bottom + (top - bottom) * inside

    def budgets(self) -> list[tuple[float, str]]:
        """Round ε50s, and what is written there."""
        every = [step * 2.0**power / 255 for power in range(-6, 9) for step in (1.0, 1.25, 1.5, 1.75)]
        inside = [value for value in every if self.least <= value <= self.most]
        for keep in (1, 2, 4):  # powers of two stay longest
            chosen = [value for value in inside if round(math.log2(255 * value) % 1, 6) in _KEPT[keep]]
            if len(chosen) <= _TICKS:
                break
        return [(value, budget(value)) for value in chosen]

    def rows(self) -> tuple[tuple[float, str], ...]:
        """Where round ε50s are, in pixels, and what is written there."""
        found = [(self.y(value), text) for value, text in self.budgets()]
        found += [(self.y(0.0), f"<{budget(self.epsilons[0])}")] if self.below else []
        found += [(self.y(math.inf), f">{budget(self.epsilons[-1])}")] if self.above else []
        return tuple(found)

    def ticks(self) -> tuple[float, ...]:
        """Round values of the measure."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return tuple(10.0**power for power in range(first, last + 1, 1 if last - first < 5 else 2))
        step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
        step = next(m * step for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 5)
        return tuple(step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1))


_AROUND = 1.12
"""Room above and below what was measured, as a factor."""

_TICKS = 6
"""At most so many round ε50s are written."""

_ALL = [round(math.log2(step), 6) for step in (1.0, 1.25, 1.5, 1.75)]
_KEPT = {1: set(_ALL), 2: {_ALL[0], _ALL[2]}, 4: {_ALL[0]}}
"""Of round ε50s, as shares of an octave: all quarters, halves, whole ones."""

_MANY = 30
"""How many times the smallest value the largest is from which a logarithmic scale shows more."""


def marks_of(found: Explanations, one: Explanation, measure: str) -> tuple[Mark, ...]:
    """Every task and method under one attacker, and those of null lines, which come first."""
    nulls = {null.surrogate for null in found.nulls if null.surrogate} - {one.attacker}
    points = found.points.get(measure, ())
    own = [p for p in points if p.target in one.methods and p.surrogate == one.chosen.get(p.target, one.attacker)]
    others = [p for p in points if p.target in one.methods and p.surrogate in nulls and p not in own]
    return (
        *(_mark(p, None) for p in others),
        *(_mark(p, one.methods.index(p.target)) for p in own),
    )


def _mark(point: Point, series: int | None) -> Mark:
    whose = f" attacked from {point.surrogate}" if series is None else ""
    return Mark(point.value, point.epsilon50, series, f"{point.target} on {point.task}{whose}")


def lines_of(moved: Sequence[Moved]) -> tuple[Line, ...]:
    """Changes of one measure that have two doses at least with a value."""
    found = []
    for one in moved:
        marks = tuple(
            Mark(dose.value, dose.epsilon50, None, f"{dose.target}, dose {dose.dose:g}")
            for dose in one.doses
            if math.isfinite(dose.value) and not math.isnan(dose.epsilon50)
        )
        if len(marks) > 1:
            found.append(Line(one.change, marks))
    return tuple(found[:_FEW])


def scatter_svg(
    marks: Sequence[Mark], epsilons: Sequence[float], title: str, about: str, beside: Sequence[Line] = ()
) -> Markup:
    """The picture for the page: colours come from its style sheet, names are escaped.

    Args:
        marks: at least one.
        epsilons: the measured budgets.
        title: of the measure.
        about: what the picture shows, for who does not see it.
        beside: what is drawn beside it, with the same ε50s at the same height.
    """
    scale = Scale.of(marks, epsilons, halves(marks, beside))
    parts = _frame(scale, title, about)
    for mark in marks:
        at, up = scale.x(mark.x), scale.y(mark.y)
        note = f"<title>{escape(_note(mark, scale.epsilons))}</title>"
        if mark.series is None:
            parts.append(f'<path class="null-mark" d="M{at - 3:.1f},{up - 3:.1f}l6,6m0,-6l-6,6">{note}</path>')
        else:
            parts.append(f'<g class="k{mark.series % 8}">{shape(mark.series, at, up, note)}</g>')
    return Markup("".join([*parts, "</svg>"]))


def lines_svg(
    lines: Sequence[Line], epsilons: Sequence[float], title: str, about: str, beside: Sequence[Mark] = ()
) -> Markup:
    """The same for changes: each a line, whose number stands at its largest dose."""
    scale = Scale.of([mark for line in lines for mark in line.marks], epsilons, halves(beside, lines))
    parts = _frame(scale, title, about)
    for place, line in enumerate(lines):
        spots = [(scale.x(mark.x), scale.y(mark.y)) for mark in line.marks]
        path = "L".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<g class="k{place % 8}"><path class="move stroke" d="M{path}"/>')
        for (x, y), mark in zip(spots, line.marks, strict=True):
            note = f"<title>{escape(f'{line.name}: {_note(mark, scale.epsilons)}')}</title>"
            parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3">{note}</circle>')
        x, y = spots[-1]
        parts.append(f'<text class="name halo" x="{x + 6:.1f}" y="{y - 5:.1f}">{place + 1}</text></g>')
    return Markup("".join([*parts, "</svg>"]))


def halves(marks: Sequence[Mark], lines: Sequence[Line]) -> list[float]:
    """The ε50s of two pictures."""
    return [mark.y for mark in (*marks, *(mark for line in lines for mark in line.marks))]


def shape(series: int, x: float, y: float, inside: str = "") -> str:
    """A method's mark: no point rests on colour alone."""
    kind = "hollow" if series >= 8 else "mark"
    match series % SHAPES:
        case 0:
            return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">{inside}</circle>'
        case 1:
            path = f"M{x - 3.6:.1f},{y - 3.6:.1f}h7.2v7.2h-7.2z"
        case 2:
            path = f"M{x:.1f},{y - 4.6:.1f}l4.6,8.2h-9.2z"
        case _:
            path = f"M{x:.1f},{y - 5:.1f}l5,5l-5,5l-5,-5z"
    return f'<path class="{kind}" d="{path}">{inside}</path>'


def key_svg(series: int | None) -> Markup:
    """A method's mark for the key."""
    inside = (
        '<path class="null-mark" d="M4,4l6,6m0,-6l-6,6"/>'
        if series is None
        else f'<g class="k{series % 8}">{shape(series, 7, 7)}</g>'
    )
    return Markup(f'<svg class="cause-key" viewBox="0 0 14 14" aria-hidden="true">{inside}</svg>')


def _frame(scale: Scale, title: str, about: str) -> list[str]:
    """The beginning of an SVG: axes, rules and their texts."""
    foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">',
        f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{right}"/>',
    ]
    for y, text in scale.rows():
        parts.append(f'<path class="rule" d="M{LEFT},{y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value in scale.ticks():
        x = scale.x(value)
        parts.append(f'<path class="axis" d="M{x:.1f},{foot}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{foot + 18}" text-anchor="middle">{value:.4g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(title)} →</text>')
    parts.append(f'<text class="name" x="12" y="{(TOP + foot) / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 12 {(TOP + foot) / 2})">ε50: safer →</text>')  # fmt: skip
    return parts


def _note(mark: Mark, epsilons: Sequence[float]) -> str:
    half = -math.inf if mark.y == 0 else mark.y
    return f"{mark.label}: {mark.x:.3g}, ε50 {epsilon50_text(half, epsilons)}"
