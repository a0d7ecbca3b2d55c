"""Images of which every block is transformed in a way of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from mergerisk.attacks._transforms import dct_matrix
from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.parts import InputTransform
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mergerisk.attacks.attack import Problem

Operation = Literal[
    "resize",
    "shift_rows",
    "shift_columns",
    "flip_rows",
    "flip_columns",
    "turn",
    "scale",
    "noise",
    "low_pass",
    "drop",
]
"""What may happen to a block: ``resize`` to four fifths of its sides and back; shifts of rows or columns, around
the edge; flips; a half ``turn``; ``scale`` its values by a number in [0, 1); uniform ``noise``; ``low_pass``: its
cosine transform loses the two fifths of highest frequencies along each side; ``drop`` each channel by a chance of
0.1, and make the others larger. Resized and noisy values are put back into [0, 1]."""

_SMALLER = 0.8
_REMOVED = 0.4
_DROPPED = 0.1


@dataclass(frozen=True)
class _Block:
    """A block and what was drawn for it.

    Attributes:
        pixels: C × h × w.
        amount: in [0, 1).
        noise: C × h × w.
        kept: C × 1 × 1, which channels are, times what the others gain.
    """

    pixels: torch.Tensor
    amount: float
    noise: torch.Tensor
    kept: torch.Tensor


def _resize(block: _Block) -> torch.Tensor:
    height, width = block.pixels.shape[-2:]
    smaller = (int(_SMALLER * height) + 1, int(_SMALLER * width) + 1)
    pixels = F.interpolate(block.pixels[None], smaller, mode="bilinear", align_corners=False)
    pixels = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return pixels[0].clamp(0.0, 1.0)


def _shift(block: _Block, dim: int) -> torch.Tensor:
    return block.pixels.roll(int(block.amount * block.pixels.shape[dim]), dim)


def _low_pass(block: _Block) -> torch.Tensor:
    rows, columns = (_lowest_frequencies(side).to(block.pixels) for side in block.pixels.shape[-2:])
    return rows @ block.pixels @ columns


def _lowest_frequencies(side: int) -> torch.Tensor:
    """side × side: onto the columns that the lowest frequencies alone make."""
    lowest = dct_matrix(side)[: side - int(_REMOVED * side)]
    return lowest.T @ lowest


_DO: dict[Operation, Callable[[_Block], torch.Tensor]] = {
    "resize": _resize,
    "shift_rows": lambda block: _shift(block, -2),
    "shift_columns": lambda block: _shift(block, -1),
    "flip_rows": lambda block: block.pixels.flip(-2),
    "flip_columns": lambda block: block.pixels.flip(-1),
    "turn": lambda block: block.pixels.flip(-2, -1),
    "scale": lambda block: block.amount * block.pixels,
    "noise": lambda block: (block.pixels + block.noise).clamp(0.0, 1.0),
    "low_pass": _low_pass,
    "drop": lambda block: block.kept * block.pixels,
}


@hyperparameters
class Patchwork(InputTransform):
    """The image is cut into blocks at random places, and each block is transformed by an operation drawn for it
    (Wang et al. 2023, arXiv 2309.14700; the ten operations of the authors' code).

    Cuts, operations and what they draw belong to the image, not to the batch. An image with fewer pixels along a
    side than ``blocks`` has as many blocks as pixels there.

    Attributes:
        patchworks: copies.
        blocks: along each side, s.
        noise: largest, as a share of ε. The authors' code and TransferAttack have 16/255 whatever ε is.
        leave_out: operations that are never drawn; TransferAttack's ``resize``, ``low_pass``, ``drop``.
    """

    patchworks: PositiveInt = 20
    blocks: PositiveInt = 3
    noise: NonNegativeFloat = 1.0
    leave_out: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        if not self._operations():
            raise ValueError("leave_out names every operation: none is left to draw")

    def _operations(self) -> list[Callable[[_Block], torch.Tensor]]:
        return [do for name, do in _DO.items() if name not in self.leave_out]

    @property
    def copies(self) -> int:
        return self.patchworks

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:
        blocks, random, operations = self.blocks, problem.random, self._operations()
        exact = images.new_empty(0, dtype=torch.float64)
        reach = problem.ball.per_pixel(self.noise * problem.epsilon)
        for _ in range(self.patchworks):
            heights, widths = (
                _between_cuts(random.uniform(side - 1, like=exact), blocks, side) for side in images.shape[-2:]
            )
            chosen = (random.uniform(blocks, blocks, like=exact) * len(operations)).long().tolist()
            amounts = random.uniform(blocks, blocks, like=exact).tolist()
            dropped = random.uniform(blocks, blocks, images.shape[1], 1, 1, like=exact) < _DROPPED
            kept = (~dropped).to(images) / (1 - _DROPPED)
            noise = reach * (2 * random.noise(like=images) - 1)
            drawn = zip(images, heights, widths, chosen, amounts, kept, noise, strict=True)
            yield torch.stack([_sewn(operations, *of_one) for of_one in drawn])


def _sewn(
    operations: list[Callable[[_Block], torch.Tensor]],
    image: torch.Tensor,
    heights: list[int],
    widths: list[int],
    chosen: list[list[int]],
    amounts: list[list[float]],
    kept: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """One image (C × H × W), its blocks transformed; there may be fewer blocks than numbers were drawn."""
    rows = []
    for row, (strip, noises) in enumerate(zip(image.split(heights, -2), noise.split(heights, -2), strict=True)):
        blocks = zip(strip.split(widths, -1), noises.split(widths, -1), strict=True)
        made = [
            operations[chosen[row][column]](_Block(pixels, amounts[row][column], added, kept[row, column]))
            for column, (pixels, added) in enumerate(blocks)
        ]
        rows.append(torch.cat(made, dim=-1))
    return torch.cat(rows, dim=-2)


def _between_cuts(numbers: torch.Tensor, blocks: int, side: int) -> list[list[int]]:
    """For every image, the sizes of its blocks along a side: cut where the smallest of its numbers
    (N × (``side`` − 1)) are, each number standing for the place after a pixel."""
    cuts = numbers.argsort(dim=1)[:, : blocks - 1].sort(dim=1).values + 1
    first, last = cuts.new_zeros(len(cuts), 1), cuts.new_full((len(cuts), 1), side)
    sizes: list[list[int]] = cuts.diff(dim=1, prepend=first, append=last).tolist()
    return sizes


@hyperparameters
class SIA(Patchwork, MIFGSM):
    """Structure invariant attack: patchworks with momentum (Wang et al. 2023, arXiv 2309.14700)."""
