"""Images a little smaller, somewhere on black."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from mergerisk.defenses.content import content_random
from mergerisk.defenses.inputs import InputDefense
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from typing import Self


@hyperparameters
class ResizePad(InputDefense):
    """Random resizing and padding (Xie et al. 2018, arXiv 1711.01991): an image is resized, nearest neighbour, to
    a random size and put at a random place on black.

    The paper enlarges 299 pixels to 299 … 330 on 331 and shows the model the larger picture. Here the picture
    keeps its size, so that every classifier takes it, and shrinks in the same ratio.

    What is drawn belongs to (seed, what the image shows): the same picture gets the same answer, and one that
    differs in a byte draws anew. The seed is the defender's secret. An attacker who knows the rest averages over
    draws of their own; the gradient passes resizing and padding as they are.

    Attributes:
        smallest: share of the sides that is left at least, 299/331 in the paper; sizes in whole pixels from there
            to the whole are equally likely.
        seed: the defender's.
    """

    smallest: Annotated[float, Field(gt=0, le=1)] = 299 / 331
    seed: int = 0

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        exact = images.new_empty(0, dtype=torch.float64, device="cpu")
        share, top, left = content_random(self.seed, "resize_pad", images).uniform(3, like=exact).numpy().T
        seen = []
        for image, one, first, second in zip(images.split(1), share, top, left, strict=True):
            # One share for both sides, as the paper's pictures are square.
            rows, above, below = self._placed(images.shape[-2], one, first)
            columns, before, behind = self._placed(images.shape[-1], one, second)
            small = image.index_select(3, columns.to(image.device)).index_select(2, rows.to(image.device))
            seen.append(F.pad(small, (before, behind, above, below)))
        return torch.cat(seen)

    def followed(self, images: torch.Tensor) -> torch.Tensor:
        return self.transform(images)

    def redrawn(self, seed: int) -> Self:
        return replace(self, seed=seed)

    def _placed(self, side: int, share: float, start: float) -> tuple[torch.Tensor, int, int]:
        """Of a line of ``side`` pixels: which ones are left, and how much black comes before and behind."""
        least = max(1, round(self.smallest * side))
        length = least + int(share * (side - least + 1))
        before = int(start * (side - length + 1))
        return _nearest(side, length), before, side - length - before


@cache
def _nearest(side: int, length: int) -> torch.Tensor:
    """int64: which pixel of a line of ``side`` each of ``length`` shows: the one its centre lies in. Centres are
    added up one step at a time, as Pillow does, so that both see the same one where a centre lies between two."""
    step = side / length
    centres = np.add.accumulate(np.array([step / 2] + [step] * (length - 1)))
    return torch.from_numpy(np.minimum(centres.astype(np.int64), side - 1))
