"""The critical-difference picture (Demšar 2006, figure 1): mean ranks on an axis, and who cannot be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks of methods over blocks (tasks, attacks), rank 1 being the lowest risk.

    Attributes:
        names: of the methods, two or more.
        mean_ranks: of each, in [1, number of methods].
        difference: the smallest difference of mean ranks that counts, in ranks.
        cliques: groups of names that cannot be told apart; those of one are left out.
        basis: what was ranked, in a sentence; may be empty.

    Raises:
        UserError: lengths differ, a rank is out of range or a clique names a stranger.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    difference: float
    cliques: tuple[tuple[str, ...], ...]
    basis: str = ""

    def __post_init__(self) -> None:
        count = len(self.names)
        if count < 2 or len(self.mean_ranks) != count or len(set(self.names)) != count:
            raise UserError(
                f"critical difference: needs two or more different names and a mean rank each, got {count} names "
                f"and {len(self.mean_ranks)} ranks"
            )
        if not all(1 <= rank <= count for rank in self.mean_ranks) or not self.difference >= 0:
            raise UserError(f"critical difference: ranks must lie in [1, {count}] and the difference be 0 or more")
        strangers = {name for clique in self.cliques for name in clique} - set(self.names)
        if strangers:
            raise UserError(f"critical difference: a clique names {sorted(strangers)}, which has no rank")


@dataclass(frozen=True)
class Place:
    """Where one method is drawn: on the axis at ``rank``, its name on the ``left`` or right, ``row`` rows down."""

    name: str
    rank: float
    left: bool
    row: int


@dataclass(frozen=True)
class Bar:
    """A clique: from the smallest to the largest mean rank, ``row`` bars below the axis."""

    low: float
    high: float
    row: int


def places(found: CriticalDifference) -> tuple[Place, ...]:
    """The better half's names go down the left side, best first; the others' down the right, worst first."""
    order = sorted(range(len(found.names)), key=lambda i: (found.mean_ranks[i], i))
    half = (len(order) + 1) // 2
    return tuple(
        Place(
            found.names[i],
            found.mean_ranks[i],
            left=place < half,
            row=place if place < half else len(order) - 1 - place,
        )
        for place, i in enumerate(order)
    )


def bars(found: CriticalDifference) -> tuple[Bar, ...]:
    """One bar per clique of two or more, on the first row where it touches no other."""
    rank = dict(zip(found.names, found.mean_ranks, strict=True))
    spans = sorted(
        (min(rank[name] for name in clique), max(rank[name] for name in clique))
        for clique in found.cliques
        if len(clique) > 1
    )
    ends: list[float] = []
    drawn = []
    for low, high in spans:
        row = next((i for i, end in enumerate(ends) if end < low), len(ends))
        ends[row : row + 1] = [high]
        drawn.append(Bar(low, high, row))
    return tuple(drawn)


WIDTH, SIDE, TOP, ROW, BAR_ROW = 860, 235, 62, 23, 9


def critical_difference_svg(found: CriticalDifference) -> Markup:
    """The picture for the page: colours come from its style sheet, names are escaped."""
    count = len(found.names)
    drawn, placed = bars(found), places(found)
    # 5 px at each end, so that a mark at the very end does not touch a name's line
    left, right = SIDE + 5, WIDTH - SIDE - 5

    def x(rank: float) -> float:
        return left + (rank - 1) / (count - 1) * (right - left)

    bar_rows = max((bar.row + 1 for bar in drawn), default=0)
    names_top = TOP + 16 + BAR_ROW * bar_rows + 12
    height = names_top + ROW * max(place.row for place in placed) + 14
    parts = [
        f'<svg class="cd" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="cd-title cd-desc">',
        '<title id="cd-title">Mean ranks and critical difference</title>',
        f'<desc id="cd-desc">{escape(in_words(found))}</desc>',
    ]
    end = min(x(1 + found.difference), right)
    parts += [
        f'<path class="cd-ink" d="M{left},16V26M{left},21H{end:.1f}M{end:.1f},16V26"/>',
        f'<text x="{left}" y="11">critical difference {found.difference:.2f}</text>',
        f'<path class="axis" d="M{left},{TOP}H{right}"/>',
    ]
    for rank in _ticks(count):
        parts.append(f'<path class="axis" d="M{x(rank):.1f},{TOP}v-6"/>')
        parts.append(f'<text x="{x(rank):.1f}" y="{TOP - 10}" text-anchor="middle">{rank}</text>')
    for place in placed:
        y = names_top + ROW * place.row
        at, edge, anchor = x(place.rank), *((SIDE - 8, "end") if place.left else (WIDTH - SIDE + 8, "start"))
        parts.append(f'<path class="cd-line" d="M{at:.1f},{TOP}V{y:.1f}H{edge + (4 if place.left else -4)}"/>')
        parts.append(f'<circle class="cd-mark" cx="{at:.1f}" cy="{TOP}" r="3.5"/>')
        parts.append(
            f'<text class="name" x="{edge}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(_short(place.name))} '
            f'<tspan class="cd-rank">{place.rank:.2f}</tspan></text>'
        )
    for bar in drawn:
        y = TOP + 14 + BAR_ROW * bar.row
        parts.append(f'<path class="cd-bar" d="M{x(bar.low) - 4:.1f},{y}H{x(bar.high) + 4:.1f}"/>')
    return Markup("".join([*parts, "</svg>"]))


def in_words(found: CriticalDifference) -> str:
    """The picture as a sentence, for those who do not see it."""
    order = sorted(zip(found.mean_ranks, found.names, strict=True))
    ranks = ", ".join(f"{name} {rank:.2f}" for rank, name in order)
    groups = [clique for clique in found.cliques if len(clique) > 1]
    same = (
        "; not told apart: " + "; ".join(", ".join(clique) for clique in groups)
        if groups
        else "; every pair is told apart"
    )
    return f"Mean ranks, lowest risk first: {ranks}. Critical difference {found.difference:.2f}{same}."


def _ticks(count: int) -> Sequence[int]:
    step = max(1, -(-count // 20))
    return [*range(1, count, step), count] if (count - 1) % step else range(1, count + 1, step)


def _short(name: str, most: int = 26) -> str:
    """A name that fits beside the axis; the whole one is in the picture's description."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
