"""Order statistics of values that are never all in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from numpy.typing import DTypeLike, NDArray

    _Values = NDArray[np.floating[Any]]

_SAMPLE = 2**18
"""Values that place the first bracket: the answer never depends on them, only the time it takes."""
_COLLECTED = 2**22
"""Values of a bracket that are kept; a bracket that holds more is narrowed."""


def kth_largest(pieces: Callable[[int], Iterable[torch.Tensor]], count: int, k: int) -> float:
    """The k-th largest of ``count`` values, exactly, in a few megabytes.

    A thin sample brackets the answer (Floyd and Rivest 1975, Algorithm 489); one pass over all values counts
    those above the bracket and collects those within it, among which the answer is selected. If the sample
    misled, or the bracket holds too many values to keep, it is moved or narrowed and the pass repeated.

    Args:
        pieces: ``pieces(stride)`` gives 1-D tensors of one dtype that hold about every ``stride``-th value, and
            every value if it is 1; the same ones at every call.
        count: number of values.
        k: rank, from 1 (the largest) to ``count``.
    """
    kept = _Kept(2 * _SAMPLE)
    for piece in pieces(-(-count // _SAMPLE)):
        kept.add(piece.cpu().numpy())
    sample = kept.values()
    floor, ceiling = -math.inf, math.inf  # floor <= answer < ceiling
    low, high = _bracket(sample, k / count, floor, ceiling)
    kept = _Kept(min(count, _COLLECTED))
    while True:
        above, inside = _scan(pieces(1), low, high, kept)
        values = kept.values()
        if k <= above:
            floor = high
        elif k > above + inside:
            ceiling = low
        elif len(values) == inside:
            return _ranked(values, k - above)
        elif _next(low, values.dtype) >= high:  # one value, many times
            return low
        else:
            floor, ceiling = low, high
            low, high = _bracket(values, (k - above) / inside, floor, ceiling)
            if (low, high) == (floor, ceiling):  # too few values to tell: cut at one of them
                largest = float(values.max())
                low, high = (largest, ceiling) if largest > floor else (floor, _next(floor, values.dtype))
            continue
        low, high = floor, ceiling


class _Kept:
    """Values that are kept: all of them, or every 2nd, 4th, … if they are too many.

    They lie in memory that is taken once. As arrays of their own, each made among the temporaries of its piece,
    they would break the heap up into holes too small for the next piece, so that it grows with what is read.

    Args:
        most: values that there is room for.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._room: _Values | None = None
        self._held = 0
        self._stride = 1

    def clear(self) -> None:
        self._held, self._stride = 0, 1

    def add(self, found: _Values) -> None:
        if self._room is None:
            self._room = np.empty(self._most, found.dtype)
        found = found[:: self._stride]
        while self._held + len(found) > self._most:
            self._stride *= 2
            half = -(-self._held // 2)
            self._room[:half] = self._room[: self._held : 2]
            self._held = half
            found = found[::2]
        self._room[self._held : self._held + len(found)] = found
        self._held += len(found)

    def values(self) -> _Values:
        """A view of them, in any order; good until the next is added."""
        return np.empty(0, np.float32) if self._room is None else self._room[: self._held]


def _bracket(sample: _Values, share: float, floor: float, ceiling: float) -> tuple[float, float]:
    """An interval [low, high) that most probably holds the value above which lie ``share`` of all values."""
    size = len(sample)
    rank = share * size
    margin = 6 * math.sqrt(max(rank * (1 - share), 1.0)) + 1
    first, last = math.floor(rank - margin), math.ceil(rank + margin)
    high = _next(_ranked(sample, first), sample.dtype) if first >= 1 else ceiling
    low = _ranked(sample, last) if last <= size else floor
    return max(low, floor), min(high, ceiling)


def _ranked(values: _Values, rank: int) -> float:
    """The rank-th largest; the values are left in another order."""
    place = len(values) - rank
    values.partition(place)
    return float(values[place])


def _next(value: float, dtype: DTypeLike) -> float:
    """The next larger number of a dtype."""
    return float(np.nextafter(np.array(value, dtype), np.array(math.inf, dtype)))


def _scan(pieces: Iterable[torch.Tensor], low: float, high: float, kept: _Kept) -> tuple[int, int]:
    """How many values are at least ``high``, and how many of the others at least ``low``, which are kept."""
    kept.clear()
    above = inside = 0
    for piece in pieces:
        over, found = _split(piece, low, high)
        above += over
        inside += len(found)
        kept.add(found)
    return above, inside


def _split(piece: torch.Tensor, low: float, high: float) -> tuple[int, _Values]:
    """How many values are at least ``high``; those in [low, high)."""
    if piece.device.type != "cpu":
        upper = piece >= high
        return int(upper.sum()), piece[(piece >= low) & ~upper].cpu().numpy()
    # NumPy compares and compacts several times faster than PyTorch does on the CPU.
    values = piece.numpy()
    over = values >= high
    within = values >= low
    within ^= over
    return int(np.count_nonzero(over)), values[within]
