"""Fewer levels of every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mergerisk.defenses.inputs import InputDefense, in_cache
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch


@hyperparameters
class BitDepth(InputDefense):
    """Feature squeezing by bit depth (Xu et al. 2018, arXiv 1704.01155, section III-A): every channel is rounded
    to ``2^bits`` evenly spaced levels before the model sees it.

    Rounding has no gradient, so that a white-box attack on the defended classifier itself fails for a reason that
    an attacker steps around, whose gradient passes as if nothing were rounded.

    Attributes:
        bits: of every channel; the paper tries 1 to 7, and 4 or 5 for colour images.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 4

    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """The gradient by the images is zero, as that of rounding is."""
        highest = 2**self.bits - 1
        return in_cache(lambda part: (part * highest).round() / highest, images)
