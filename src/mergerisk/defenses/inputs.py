"""What defenses at the input share: pixels are changed before the model sees them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from mergerisk.attacks.ensemble import Ensemble
from mergerisk.defenses.adaptive import Transformed, checked_draws, valued
from mergerisk.defenses.defense import Defense
from mergerisk.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from torch import nn


class InputDefense(Defense):
    """A transform of pixels before a classifier.

    The defended classifier has the gradient of :meth:`transform`, which may be zero; the one for attackers who
    know it has that of :meth:`followed`, averaged over draws where it draws.
    """

    @abstractmethod
    def transform(self, images: torch.Tensor) -> torch.Tensor:
        """What the classifier sees: N × C × H × W in [0, 1] → the same shape. An image's result depends on
        nothing but that image and the hyper-parameters."""

    def followed(self, images: torch.Tensor) -> torch.Tensor:
        """The same, with a gradient worth following: as if images passed unchanged, unless a defense has one."""
        with torch.no_grad():
            seen = self.transform(images)
        return valued(images, seen)

    def redrawn(self, seed: int) -> Self:  # noqa: ARG002
        """The same defense with other random draws; itself, if it draws nothing."""
        return self

    def defend(self, classifier: nn.Module) -> nn.Module:
        return Transformed(classifier, self.transform)

    def adaptive_passes(self, draws: int = 10) -> int:
        return len(self._drawn(draws, 0))

    def adaptive(self, classifier: nn.Module, *, draws: int = 10, seed: int = 0) -> nn.Module:
        members = [Transformed(classifier, other.followed) for other in self._drawn(draws, seed)]
        return members[0] if len(members) == 1 else Ensemble(members, combine="loss")

    def _drawn(self, draws: int, seed: int) -> tuple[Self, ...]:
        """The same defense with the attacker's draws; itself alone, if it draws nothing."""
        numbers = range(checked_draws(draws))
        return tuple(dict.fromkeys(self.redrawn(derive_seed(seed, "eot", number)) for number in numbers))


_PORTION = 2**18
"""Pixel values that a processor's cache holds a few times over: several times as fast as whole batches."""


def in_cache(work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """``work`` (N × C × H × W → N × …) on as many images at a time as a processor's cache holds. An accelerator
    gets them all at once."""
    size = max(1, _PORTION // max(1, images[:1].numel()))
    if images.device.type != "cpu" or len(images) <= size:
        return work(images)
    return torch.cat([work(part) for part in images.split(size)])


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] as the nearest bytes, uint8; what lies outside as the end that is nearer."""
    return in_cache(lambda part: (part * 255).round_().clamp_(0, 255).to(torch.uint8), images.detach())


def with_no_gradient(value: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """``value``, N × …, to the bit, in a graph in which the gradient by finite ``images``, N × …, is zero."""
    nothing = images if images.shape == value.shape else images.flatten(1).sum(dim=1, keepdim=True)
    return value + nothing * 0.0
