"""An attack, an input transformation and a gradient filter that mergerisk does not know of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mergerisk.attacks import Attack, GradientFilter, InputTransform
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from mergerisk.attacks import Problem


@hyperparameters
class CoinToss(Attack):
    """Every pixel goes up or down by the whole budget at random: the least any attack should beat.

    Attributes:
        share: of the budget that is used.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    def perturb(self, problem: Problem) -> torch.Tensor:
        signs = (problem.random.noise(like=problem.images) - 0.5).sign()
        return problem.images + self.share * problem.ball.per_pixel(problem.epsilon) * signs


@hyperparameters
class BothWays(InputTransform):
    """The image, and the image from right to left."""

    @property
    def copies(self) -> int:
        return 2

    def views(self, images: torch.Tensor, problem: Problem) -> Iterator[torch.Tensor]:  # noqa: ARG002
        yield images
        yield images.flip(-1)


@hyperparameters
class Loudest(GradientFilter):
    """Of every pixel's channels the one whose gradient is the largest, the others at zero."""

    def filter(self, gradient: torch.Tensor) -> torch.Tensor:
        size = gradient.abs()
        return gradient * (size == size.amax(dim=1, keepdim=True))
