"""Attackers who know what stands before a classifier: its gradient replaced, its draws averaged.

Both are modules from pixels to logits, so that every attack crafts on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mergerisk.attacks.ensemble import Ensemble
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    Transform = Callable[[torch.Tensor], torch.Tensor]
    """Images, N × C × H × W in [0, 1] → images of the same shape."""


class _Valued(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, carrier: torch.Tensor, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        return gradients[0], None


def valued(carrier: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value``, to the bit, whose gradient goes to ``carrier``, of the same shape, as if it were that."""
    found: torch.Tensor = _Valued.apply(carrier, value.detach())  # type: ignore[no-untyped-call]
    return found


class Transformed(nn.Module):
    """A classifier that sees images through a transform.

    Args:
        classifier: from pixels to logits.
        transform: of the images.
    """

    def __init__(self, classifier: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.classifier = classifier
        self.transform = transform

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × C × H × W in [0, 1] → logits, N × classes."""
        logits: torch.Tensor = self.classifier(self.transform(images))
        return logits


def bpda(classifier: nn.Module, transform: Transform, backward: Transform | None = None) -> nn.Module:
    """A classifier behind a transform, differentiated as if another stood there: backward pass differentiable
    approximation (Athalye et al. 2018, arXiv 1802.00420, section 4.1).

    Args:
        classifier: from pixels to logits.
        transform: what images go through; it needs no gradient.
        backward: what stands for it when gradients are taken; by default nothing does, as if images passed
            unchanged: the straight-through gradient.
    """

    def seen(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            value = transform(images)
        return valued(images if backward is None else backward(images), value)

    return Transformed(classifier, seen)


def eot(classifier: nn.Module, draws: int = 10) -> nn.Module:
    """A classifier that draws from PyTorch's generator at every call, averaged over draws: expectation over
    transformation (Athalye et al. 2018, arXiv 1707.07397; 1802.00420, section 4.2).

    Attacks follow the mean of the losses; the output is the mean log-softmax. Every draw costs a gradient of its
    own.

    Args:
        classifier: from pixels to logits.
        draws: how many; 10 to 20 are usual.

    Raises:
        UserError: fewer than one draw.
    """
    return Ensemble([classifier] * checked_draws(draws), combine="loss")


def checked_draws(draws: int) -> int:
    """Raises:
    UserError: fewer than one draw.
    """
    if draws < 1:
        raise UserError(f"draws must be 1 or more, got {draws}")
    return draws
