"""Clean accuracy against ASR: a point per method of a table, numbered by rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.report.formatting import percent, with_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mergerisk.leaderboard.ranking import Row
    from mergerisk.report.risk import Mean

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 430, 56, 18, 22, 46


def risk_svg(rows: Sequence[Row], bases: Mapping[str, int]) -> Markup:
    """The picture for the page: its style sheet has the colours, one per base, as is the shape; names are escaped.

    Args:
        rows: of a table, by rank.
        bases: each with its number, which filters go by.
    """
    known = [row for row in rows if not math.isnan(row.asr.value) and not math.isnan(row.clean_accuracy.value)]
    if not known:
        return Markup("")
    along = _ends([end for row in known for end in _three(row.clean_accuracy)])
    up = _ends([end for row in known for end in _three(row.asr)])

    def x(share: float) -> float:
        return round(LEFT + (share - along[0]) / (along[1] - along[0]) * (WIDTH - LEFT - RIGHT), 1)

    def y(share: float) -> float:
        return round(HEIGHT - BOTTOM - (share - up[0]) / (up[1] - up[0]) * (HEIGHT - BOTTOM - TOP), 1)

    foot, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    about = "Clean accuracy against ASR under the worst attacker: the figures of the table"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{about}">']
    for share in ticks(*along):
        parts.append(f'<path class="rule" d="M{x(share)},{TOP}V{foot}"/>')
        parts.append(f'<text x="{x(share)}" y="{foot + 17}" text-anchor="middle">{percent(share)}</text>')
    for share in ticks(*up):
        parts.append(f'<path class="rule" d="M{LEFT},{y(share)}H{right}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y(share) + 4}" text-anchor="end">{percent(share)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 9}" text-anchor="middle">mean clean accuracy</text>')
    parts.append('<text x="8" y="12">ASR under the worst attacker</text>')
    parts.append(f'<text x="{right}" y="12" text-anchor="end">safer and more accurate ↘</text>')
    front = sorted((x(row.clean_accuracy.value), y(row.asr.value)) for row in known if row.best)
    if front[1:]:
        parts.append(f'<path class="front" d="M{"L".join(f"{a},{b}" for a, b in front)}"/>')
    spots = _labels([(x(row.clean_accuracy.value), y(row.asr.value), str(row.rank)) for row in known])
    points = [_point(row, bases[row.base], x, y, spot) for row, spot in zip(known, spots, strict=True)]
    parts += reversed(points)  # the safest lie on top
    return Markup("".join([*parts, "</svg>"]))


_SPOTS = ((7, -5), (7, 13), (-7, -5), (-7, 13), (12, 4), (-12, 4), (0, -12), (0, 20), (20, -12), (-20, -12))
"""Where a label may stand beside its point, first choice first; those to the left of it end there."""


def _labels(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Where the labels of points begin or end, and which: each where it covers the least of points and labels."""
    taken = [(x - 6, x + 6, y - 6, y + 6) for x, y, _ in points]
    found = []
    for x, y, text in points:
        width = 6.5 * len(text)
        choices = []
        for place, (dx, dy) in enumerate(_SPOTS):
            anchor = "end" if dx < 0 else "middle" if dx == 0 else "start"
            left = x + dx - {"end": width, "middle": width / 2, "start": 0}[anchor]
            box = (left, left + width, y + dy - 9, y + dy + 1)
            covered = sum(_overlap(box, other) for other in taken)
            choices.append((covered + place, box, (round(x + dx, 1), round(y + dy, 1), anchor)))
        _, box, spot = min(choices, key=lambda choice: choice[0])
        taken.append(box)
        found.append(spot)
    return found


_Box = tuple[float, float, float, float]
"""Left, right, top and bottom."""


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[1], other[1]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[2], other[2])
    return max(0.0, width) * max(0.0, height)


def _point(
    row: Row,
    base: int,
    x: Callable[[float], float],
    y: Callable[[float], float],
    label: tuple[float, float, str],
) -> str:
    accuracy, asr = row.clean_accuracy, row.asr
    at, up = x(accuracy.value), y(asr.value)
    said = (
        f"{row.rank}. {row.method} ({row.entry}): ASR {with_interval(asr.value, asr.low, asr.high, 1)}, clean "
        f"accuracy {with_interval(accuracy.value, accuracy.low, accuracy.high, 1)}"
    )
    lines = ""
    if math.isfinite(accuracy.low) and math.isfinite(accuracy.high):
        lines += f'<path class="whisker stroke" d="M{x(accuracy.low)},{up}H{x(accuracy.high)}"/>'
    if math.isfinite(asr.low) and math.isfinite(asr.high):
        lines += f'<path class="whisker stroke" d="M{at},{y(asr.low)}V{y(asr.high)}"/>'
    shape = _SHAPES[base % len(_SHAPES)]
    return (
        f'<g class="k{base % 8}" data-base="{base}" data-name="{escape(row_key(row))}" role="img" '
        f'aria-label="{escape(said)}"><title>{escape(said)}</title>{lines}'
        f'<path class="mark" d="{shape}" transform="translate({at},{up})"/>'
        f'<text class="name halo" x="{label[0]}" y="{label[1]}" text-anchor="{label[2]}">{row.rank}</text></g>'
    )


def row_key(row: Row) -> str:
    """What a search goes by."""
    return f"{row.method} {row.entry}".lower()


_SHAPES = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-6L5.5,4.3H-5.5Z",
    "M0,-6.5L6.5,0L0,6.5L-6.5,0Z",
    "M0,6L5.5,-4.3H-5.5Z",
)


def _three(mean: Mean) -> list[float]:
    return [end for end in (mean.value, mean.low, mean.high) if math.isfinite(end)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis: a little more than the values, within 0 and 1."""
    extra = max(0.06 * (max(values) - min(values)), 0.01)
    return max(-0.01, min(values) - extra), min(1.01, max(values) + extra)


def ticks(low: float, high: float) -> list[float]:
    """Round shares from ``low`` to ``high``, seven at most."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 7)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
