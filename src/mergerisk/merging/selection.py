"""Order statistics of values that are never all in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    sample = torch.cat(list(pieces(-(-count // _SAMPLE))))
    floor, ceiling = -math.inf, math.inf  # floor <= answer < ceiling
    low, high = _bracket(sample, k / count, floor, ceiling)
    while True:
        above, inside, values = _scan(pieces(1), low, high)
        if k <= above:
            floor = high
        elif k > above + inside:
            ceiling = low
        elif len(values) == inside:
            return float(values.kthvalue(inside - (k - above) + 1).values)
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


def _bracket(sample: torch.Tensor, share: float, floor: float, ceiling: float) -> tuple[float, float]:
    """An interval [low, high) that most probably holds the value above which lie ``share`` of all values."""
    size = len(sample)
    rank = share * size
    margin = 6 * math.sqrt(max(rank * (1 - share), 1.0)) + 1
    first, last = math.floor(rank - margin), math.ceil(rank + margin)
    high = _next(_ranked(sample, first), sample.dtype) if first >= 1 else ceiling
    low = _ranked(sample, last) if last <= size else floor
    return max(low, floor), min(high, ceiling)


def _ranked(sample: torch.Tensor, rank: int) -> float:
    return float(sample.kthvalue(len(sample) - rank + 1).values)


def _next(value: float, dtype: torch.dtype) -> float:
    """The next larger number of a dtype."""
    return float(torch.nextafter(torch.tensor(value, dtype=dtype), torch.tensor(math.inf, dtype=dtype)))


def _scan(pieces: Iterable[torch.Tensor], low: float, high: float) -> tuple[int, int, torch.Tensor]:
    """How many values are at least ``high``, how many of the others at least ``low``, and these themselves:
    all of them, or every 2nd, 4th, … if they are too many."""
    above = inside = held = 0
    stride = 1
    collected: list[torch.Tensor] = []
    for piece in pieces:
        over, found = _split(piece, low, high)
        above += over
        inside += len(found)
        collected.append(found if stride == 1 else found[::stride].clone())
        held += len(collected[-1])
        while held > _COLLECTED:
            stride *= 2
            collected = [torch.cat(collected)[::2].clone()]
            held = len(collected[0])
    return above, inside, torch.cat(collected)


def _split(piece: torch.Tensor, low: float, high: float) -> tuple[int, torch.Tensor]:
    """How many values are at least ``high``; those in [low, high)."""
    if piece.device.type != "cpu":
        upper = piece >= high
        return int(upper.sum()), piece[(piece >= low) & ~upper]
    # NumPy compares and compacts several times faster than PyTorch does on the CPU.
    values = piece.numpy()
    over = values >= high
    within = values >= low
    within ^= over
    return int(np.count_nonzero(over)), torch.from_numpy(values[within])
