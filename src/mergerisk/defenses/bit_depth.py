"""Fewer levels of every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import nn

from mergerisk.defenses.defense import Defense
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch


class RoundedPixels(nn.Module):
    """A classifier that sees pixels rounded to so many levels."""

    def __init__(self, classifier: nn.Module, levels: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.levels = levels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × 3 × H × W in [0, 1] → logits; the gradient by the images is zero, as that of rounding is."""
        logits: torch.Tensor = self.classifier((images * (self.levels - 1)).round() / (self.levels - 1))
        return logits


@hyperparameters
class BitDepth(Defense):
    """Feature squeezing by bit depth (Xu et al. 2018, arXiv 1704.01155, section III-A): every channel is rounded
    to ``2^bits`` evenly spaced levels before the model sees it.

    Rounding has no gradient, so that a white-box attack on the defended classifier itself fails for a reason that
    an attacker steps around; figures of attackers who do not know of it say little.

    Attributes:
        bits: of every channel; the paper tries 1 to 7, and 4 or 5 for colour images.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 4

    def defend(self, classifier: nn.Module) -> nn.Module:
        return RoundedPixels(classifier, 2**self.bits)
