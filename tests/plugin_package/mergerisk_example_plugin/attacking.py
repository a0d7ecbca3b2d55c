"""An attack, an input transformation, a gradient filter, an ensemble algorithm and a search by queries that mergerisk
does not know of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mergerisk.attacks import Attack, EnsembleAlgorithm, GradientFilter, InputTransform
from mergerisk.transfer import QuerySearch, Searching
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from mergerisk.attacks import Members, Problem


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


@hyperparameters
class Evenly(EnsembleAlgorithm):
    """The sum of the members' gradients, each of length 1, so that none is louder than another."""

    def passes(self, members: int) -> int:
        return members

    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        found = (members.one(number, point) for number in range(members.count))
        return sum(
            (one / one.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-12) for one in found), 0 * point
        )


class Tossing(Searching):
    """Asks about the clean image with every pixel changed by the whole budget, anew each time."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def propose(self, best: torch.Tensor, rows: torch.Tensor, query: int) -> torch.Tensor:  # noqa: ARG002
        return CoinToss().perturb(self.problem)[rows]


@hyperparameters
class CoinTosses(QuerySearch):
    """One coin toss after another."""

    def over(self, problem: Problem, queries: int) -> Searching:  # noqa: ARG002
        return Tossing(problem)
