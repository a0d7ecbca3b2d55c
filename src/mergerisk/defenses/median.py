"""Every pixel as the median of its neighbourhood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from mergerisk.defenses.inputs import InputDefense, in_cache
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence


@hyperparameters
class Median(InputDefense):
    """Median smoothing (Xu et al. 2018, arXiv 1704.01155, section III-B), channel by channel; images are mirrored
    at their edges, the outermost pixels included, as by ``scipy.ndimage.median_filter``, the paper's.

    It has a gradient, that of the pixel which is the median; an attacker who knows it follows that.

    Attributes:
        size: the window's side. Of an even one it reaches farther up and left, and of the two values in the middle
            the larger counts, as in SciPy.
    """

    size: Annotated[int, Field(ge=2, le=9)] = 3

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        return in_cache(self._filtered, images)

    def followed(self, images: torch.Tensor) -> torch.Tensor:
        return self.transform(images)

    def _filtered(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        down, across = (_mirrored(side, self.size, images.device) for side in (height, width))
        wide = images[..., down, :][..., across]
        if self.size == 3:
            return _taken(wide) if images.requires_grad else _median_of_nine(wide)
        windows = wide.unfold(-2, self.size, 1).unfold(-2, self.size, 1).flatten(-2)
        return windows.kthvalue(self.size**2 // 2 + 1, dim=-1).values


def _mirrored(side: int, size: int, device: torch.device) -> torch.Tensor:
    """int64: the places of a line of ``side`` pixels, with what windows of ``size`` see beyond its ends."""
    places = torch.arange(-(size // 2), side + (size - 1) // 2, device=device) % (2 * side)
    return places.minimum(2 * side - 1 - places)


def _median_of_nine(wide: torch.Tensor) -> torch.Tensor:
    """Medians of 3 × 3 windows: with the columns sorted, that of the largest of the smallest, the middle one of
    the middle ones, and the smallest of the largest. Columns are sorted once for the three windows they are in."""
    low, middle, high = _sorted([wide[..., i : wide.shape[-2] - 2 + i, :] for i in range(3)])
    lows, middles, highs = (
        [line[..., i : line.shape[-1] - 2 + i] for i in range(3)] for line in (low, middle, high)
    )
    largest = lows[0].maximum(lows[1]).maximum(lows[2])
    smallest = highs[0].minimum(highs[1]).minimum(highs[2])
    return _middle([largest, _middle(middles), smallest])


def _taken(wide: torch.Tensor) -> torch.Tensor:
    """The same, with a gradient that goes to the first pixel of each window that is its median: a fifth of the
    time of one through all the comparisons."""
    height, width = wide.shape[-2] - 2, wide.shape[-1] - 2
    with torch.no_grad():
        medians = _median_of_nine(wide)
        which = torch.zeros_like(medians, dtype=torch.uint8)
        for place in range(8, 0, -1):
            row, column = divmod(place, 3)
            which.masked_fill_(wide[..., row : row + height, column : column + width] == medians, place)
        first = wide[..., :height, :width] == medians
        which.masked_fill_(first, 0)
        within = torch.arange(9, device=wide.device)
        within = within // 3 * wide.shape[-1] + within % 3
        corner = torch.arange(height, device=wide.device)[:, None] * wide.shape[-1]
        corner = corner + torch.arange(width, device=wide.device)
        index = (within[which.int()] + corner).flatten(-2)
    return wide.flatten(-2).gather(-1, index).view_as(medians)


def _sorted(three: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first, second, third = three
    less, more = first.minimum(second), first.maximum(second)
    rest = more.minimum(third)
    return less.minimum(rest), less.maximum(rest), more.maximum(third)


def _middle(three: Sequence[torch.Tensor]) -> torch.Tensor:
    first, second, third = three
    return first.minimum(second).maximum(first.maximum(second).minimum(third))
