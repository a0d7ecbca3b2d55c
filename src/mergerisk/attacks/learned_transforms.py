"""Images that go through chains of operations, drawn by probabilities that are learned on the way."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveInt

from mergerisk.attacks.gradient_sign import MIFGSM
from mergerisk.attacks.operations import Family, operations
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle, Run
    from mergerisk.attacks.operations import Operation


@dataclass(frozen=True)
class _Rewarding:
    """The surrogate's gradients, and what every image gained wherever one was taken.

    Attributes:
        gradient: images → their gradients; adds to ``gains``.
        gains: N each.
    """

    gradient: Oracle
    gains: list[torch.Tensor]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.gradient(images)

    def taken(self) -> torch.Tensor:
        """float64, N, on the CPU: the mean gain since this was last asked."""
        mean = torch.stack(self.gains).mean(dim=0).cpu().double()
        self.gains.clear()
        return mean


@hyperparameters
class L2T(MIFGSM):
    """Learning to transform: the mean gradient over chains of operations, drawn by probabilities that rise with
    the losses found under them (Zhu et al. 2024, arXiv 2405.14077; as the authors' code, TransferAttack's,
    computes it).

    The probabilities are the softmax of θ, at first 0. A chain's is the product p of its operations', and
    θ ← θ + η/K Σ L ∇p over the K chains of a step, L the loss under a chain. θ, and what is drawn, are the image's
    own; public code has one θ and one draw for a batch. With the authors' η no probability moves by more than
    some millionths of itself in ten steps, here as there: what L2T does is draw.

    An operation gives one view here, drawn from those that the authors' gives, of which the mean is the same: so a
    chain costs one gradient, where theirs costs 1 to 225. The spectrum's noise follows ε, theirs is 16/255.
    Rotations and shifts are bilinear; theirs take the nearest pixel, for which shifts below half a pixel are none.

    Attributes:
        chains: drawn at each step, K; the authors' 3, of 34 gradients each on average.
        length: operations in a chain.
        learning_rate: η.
        noise: standard deviation of the spectrum's noise, as a share of ε.
        leave_out: families of operations that are never drawn.
    """

    chains: PositiveInt = 20
    length: PositiveInt = 2
    learning_rate: NonNegativeFloat = 0.01
    noise: NonNegativeFloat = 1.0
    leave_out: tuple[Family, ...] = ()

    def __post_init__(self) -> None:
        if not operations(self.noise, self.leave_out):
            raise ValueError("leave_out names every family: no operation is left to draw")

    def estimates(self) -> int:
        return self.iterations * self.chains

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        gains: list[torch.Tensor] = []
        gradient = self.loss_gradient(problem, problem.classifier, gained=gains.append)
        return nullcontext(_Rewarding(gradient, gains))

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        oracle = run.oracle
        assert isinstance(oracle, _Rewarding)
        pool = operations(self.noise, self.leave_out)
        alone = list(run.problem.each())
        exact = torch.zeros(len(point), len(pool), dtype=torch.float64)
        preferences = run.memory.get("preferences", exact)
        chances = preferences.softmax(dim=1)
        total, slope = torch.zeros_like(point), torch.zeros_like(exact)
        for _ in range(self.chains):
            numbers = run.problem.random.uniform(self.length, like=exact)
            # Sums of chances may end a rounding below 1.
            chosen = torch.searchsorted(chances.cumsum(dim=1), numbers, right=True).clamp(max=len(pool) - 1)
            with torch.enable_grad():
                leaf = point.detach().requires_grad_()
                view = torch.cat(
                    [
                        _through([pool[k] for k in chain], image, one)
                        for chain, image, one in zip(chosen.tolist(), leaf.split(1), alone, strict=True)
                    ]
                )
                (found,) = torch.autograd.grad(view, leaf, run.gradient(view))
            total += found
            chance = chances.gather(1, chosen).prod(dim=1)
            drawn = torch.zeros_like(exact).scatter_add_(1, chosen, torch.ones_like(numbers))
            slope += (oracle.taken() * chance)[:, None] * (drawn - self.length * chances)
        run.memory["preferences"] = preferences + self.learning_rate / self.chains * slope
        return total / self.chains


def _through(chain: Sequence[Operation], image: torch.Tensor, problem: Problem) -> torch.Tensor:
    for operation in chain:
        image = operation(image, problem)
    return image
