"""Numbers as the report prints them. One place, so that one figure never appears in two forms."""

from __future__ import annotations

import math

MISSING = "–"
BINS = 11
"""Steps of a colour scale; the style sheet defines a background and an ink for each."""


def percent(rate: float, digits: int = 0) -> str:
    """A rate in [0,1] as a percentage, or a dash where there is none."""
    return MISSING if not math.isfinite(rate) else f"{100 * rate:.{digits}f}%"


def interval(low: float, high: float, digits: int = 0) -> str:
    """An interval of rates, in percent: ``[41, 47]``, or ``[41, ∞)`` of a ratio without an upper end."""
    if math.isfinite(low) and high == math.inf:
        return f"[{100 * low:.{digits}f}, ∞)"
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def with_interval(value: float, low: float, high: float, digits: int = 0) -> str:
    """A rate with its interval, ``44% [41, 47]``; the rate alone where it has none."""
    return f"{percent(value, digits)} {interval(low, high, digits)}".rstrip()


def ratio(value: float, low: float, high: float, missing: str = MISSING) -> str:
    """A relative ASR with its interval, ``0.52 [0.31, ∞]``; ``missing`` where there is none."""
    if not math.isfinite(value):
        return missing
    return f"{value:.2f} [{low:.2f}, {f'{high:.2f}' if math.isfinite(high) else '∞'}]"


def budget(epsilon: float) -> str:
    """A budget in [0,1] pixel units as ``8/255``."""
    return MISSING if math.isnan(epsilon) else f"{255 * epsilon:.3g}/255"


def duration(seconds: float) -> str:
    """A time in words, to two units: ``1 h 12 min``, ``3 min 20 s``, ``0.4 s``."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def count(number: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{int(number):,}".replace(",", "\u202f")


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listing(names: list[str], limit: int = 3) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 4 others``."""
    if len(names) > limit + 1:
        return f"{', '.join(names[:limit])} and {len(names) - limit} others"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def colour_bin(value: float, low: float, high: float) -> int | None:
    """Which of the `BINS` colours a value gets on a scale from ``low`` to ``high``; None for NaN."""
    if math.isnan(value):
        return None
    if value <= low or high <= low:
        return 0
    return min(BINS - 1, round((BINS - 1) * (value - low) / (high - low)))
