"""The one loop up any function of the images: for whoever trains against the worst of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat

from mergerisk.attacks.attack import Pool, Problem
from mergerisk.attacks.budget import Norm, ball
from mergerisk.attacks.gradient_attack import IterativeAttack
from mergerisk.models.inside.hooks import frozen
from mergerisk.randomness import ImageRandom
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mergerisk.attacks.gradient_attack import Oracle

_LARGEST_STEP = 2.5
"""Of α · steps / ε by default (Madry et al. 2018): far enough for every point of the ball to be reached."""


@hyperparameters
class Ascent(IterativeAttack):
    """PGD up a function of the images.

    Attributes:
        gain: images, N × C × H × W → one number, a sum over images, which grows.
        noise: standard deviation of the normal noise that it starts from; None for a uniform start in the ball.
    """

    gain: Callable[[torch.Tensor], torch.Tensor]
    noise: NonNegativeFloat | None = None

    def surrogate(self, problem: Problem) -> AbstractContextManager[Oracle]:
        del problem
        return nullcontext(self.gradient_of(self.gain))

    def start(self, problem: Problem) -> torch.Tensor:
        if self.noise is None:
            return problem.ball.start(problem.random)
        drawn = problem.random.normal(like=problem.images)
        return problem.ball.project(problem.images.add(drawn, alpha=self.noise))


def ascend(
    model: nn.Module,
    gain: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float | None = None,
    noise: float | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> torch.Tensor:
    """The last iterate of ``steps`` steps up ``gain``, within ball and box; all images at once.

    Args:
        model: what ``gain`` asks; meanwhile it is in evaluation mode, and its parameters take no gradient.
        gain: see :class:`Ascent`.
        images: N × C × H × W, floating, in [0, 1].
        epsilon: radius of the ball, in pixel units.
        steps: how many.
        step_size: α, in pixel units; None for 2.5 ε / ``steps``, at most ε.
        noise: see :class:`Ascent`.
        norm: of the ball.
        seed: of the start, which belongs to (seed, image index).
        indices: the images' identities; their positions by default.

    Raises:
        UserError: a gradient is NaN or infinite, or there is none.
    """
    size = min(epsilon, _LARGEST_STEP * epsilon / steps) if step_size is None else step_size
    named = [*range(len(images))] if indices is None else indices
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    problem = Problem(
        model,
        images,
        labels,
        None,
        ball(norm, images, epsilon),
        ImageRandom(seed, "ascent", named),
        Pool(images, labels),
        seed,
    )
    with frozen(model, "what is trained"):
        return Ascent(gain=gain, steps=steps, step_size=size, noise=noise).perturb(problem).adversarial
