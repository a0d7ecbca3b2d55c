"""Attacks that also ask for gradients at random points around the current images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt

from mergerisk.attacks.gradient_sign import MIFGSM, NIFGSM
from mergerisk.attacks.gradients import normalised
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.attacks.gradient_attack import Run


@hyperparameters
class _Neighbours(MIFGSM):
    """MI-FGSM that looks around: what the attacks below share.

    Attributes:
        neighbours: random points around every image, at each step.
        radius: every pixel of a neighbour differs by at most this share of what ε allows a pixel.
    """

    neighbours: PositiveInt = 20
    radius: NonNegativeFloat = 1.5

    def around(
        self, run: Run, gradient: Callable[[torch.Tensor], torch.Tensor], centre: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean, over the neighbours of the current images or of ``centre``, of what ``gradient`` finds."""
        centre = run.adversarial if centre is None else centre
        reach = run.problem.ball.per_pixel(self.radius * run.problem.epsilon)
        total = torch.zeros_like(run.adversarial)
        for _ in range(self.neighbours):
            draws = run.problem.random.noise(like=run.adversarial)
            total += gradient(centre + reach * (2 * draws - 1))
        return total / self.neighbours


@hyperparameters
class VMIFGSM(_Neighbours):
    """Momentum with tuned variance: each gradient is corrected by how much, at the step before, the neighbours'
    mean gradient differed from the images' own (Wang and He 2021, arXiv 2103.15571, algorithm 1)."""

    def estimates(self) -> int:
        # Nothing would use what the last step's neighbours say.
        return self.iterations + (self.iterations - 1) * self.neighbours

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        own = run.memory["own"] = run.gradient(point)
        return own + run.memory["variance"] if "variance" in run.memory else own

    def direction(self, run: Run) -> torch.Tensor:
        if not run.last:
            run.memory["variance"] = self.around(run, run.gradient, self.centre(run)) - run.memory["own"]
        return super().direction(run)

    def centre(self, run: Run) -> torch.Tensor:
        """What the neighbours lie around: the current images, the momentum being the new one already."""
        return run.adversarial


@hyperparameters
class VNIFGSM(VMIFGSM, NIFGSM):
    """VMI-FGSM with Nesterov look-ahead (Wang and He 2021, arXiv 2103.15571).

    What is subtracted from the neighbours' mean is the gradient at the point looked ahead to, as in the authors'
    code and torchattacks.

    Attributes:
        neighbours_of: what the neighbours lie around: the current ``image``, as in the paper, the authors' code
            and torchattacks; or the ``look_ahead`` along the new momentum, as in TransferAttack.
    """

    neighbours_of: Literal["image", "look_ahead"] = "image"

    def centre(self, run: Run) -> torch.Tensor:
        return run.adversarial if self.neighbours_of == "image" else self.look_ahead(run)


@hyperparameters
class PGN(_Neighbours):
    """Towards flat regions: at each neighbour, the gradient there and the one a step against it are averaged,
    which penalises the gradient's norm (Ge et al. 2023, arXiv 2306.05225, algorithm 1).

    Attributes:
        balance: weight of the gradient after the step, δ.
    """

    radius: NonNegativeFloat = 3.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5

    def estimates(self) -> int:
        return self.iterations * 2 * self.neighbours

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        step = run.problem.ball.per_pixel(run.step_size)

        def flattened(neighbour: torch.Tensor) -> torch.Tensor:
            here = run.gradient(neighbour)
            there = run.gradient(neighbour - step * normalised(here))
            return (1 - self.balance) * here + self.balance * there

        return self.around(run, flattened)


@hyperparameters
class GRA(_Neighbours):
    """The neighbours' mean gradient counts the more, the less the image's own agrees with it; and a pixel's steps
    shrink whenever its direction turns (Zhu et al. 2023, "Boosting adversarial transferability via gradient
    relevance attack", ICCV).

    Attributes:
        shrink: what a pixel's step is multiplied by when its momentum changes sign, η.
    """

    radius: NonNegativeFloat = 3.5
    shrink: Annotated[float, Field(gt=0, le=1)] = 0.94

    def estimates(self) -> int:
        return self.iterations * (1 + self.neighbours)

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        own = run.gradient(point)
        mean = self.around(run, run.gradient)
        # Normalised first: squares of tiny gradients would underflow.
        flat_own, flat_mean = (normalised(gradient).flatten(1) for gradient in (own, mean))
        relevance = F.cosine_similarity(flat_own, flat_mean)[:, None, None, None]
        return relevance * own + (1 - relevance) * mean

    def direction(self, run: Run) -> torch.Tensor:
        signs = run.momentum.sign()
        sizes = torch.ones_like(signs)
        if "signs" in run.memory:
            sizes = run.memory["sizes"]
            sizes = torch.where(signs == run.memory["signs"], sizes, self.shrink * sizes)
        run.memory |= {"signs": signs, "sizes": sizes}
        return sizes * super().direction(run)


@hyperparameters
class MEF(_Neighbours):
    """Maximin expected flatness: the mean gradient over neighbours, each moved to where the loss is expected to be
    low (Qiu et al. 2024, arXiv 2405.16181; as the authors' code computes it).

    Neighbour k of a step lies at x + r_k + ξ p_k, with r_k uniform; from the gradient g_k found there,
    p_k ← g_k / mean|g_k| − μ′ p_k: what was uphill a step ago is taken for downhill now. The authors take twice
    the steps of those they compare with, and so does TransferAttack (``steps: 20``); the default is everyone's.

    Attributes:
        inner_radius: ξ, how far a neighbour is moved, as a share of what ε allows a pixel.
        inner_decay: μ′.
    """

    radius: NonNegativeFloat = 2.0
    decay: NonNegativeFloat = 0.5
    inner_radius: NonNegativeFloat = 0.15
    inner_decay: NonNegativeFloat = 0.9

    def estimates(self) -> int:
        return self.iterations * self.neighbours

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        moves = run.memory.setdefault("moves", point.new_zeros(self.neighbours, *point.shape))
        inner = run.problem.ball.per_pixel(self.inner_radius * run.problem.epsilon)
        towards = iter(moves)

        def moved(neighbour: torch.Tensor) -> torch.Tensor:
            move = next(towards)
            found = run.gradient(neighbour + inner * move)
            move.mul_(-self.inner_decay).add_(normalised(found))
            return found

        return self.around(run, moved)


@hyperparameters
class EMIFGSM(MIFGSM):
    """Enhanced momentum: the mean gradient over points on the line through the image along the mean gradient ḡ of
    the step before (Wang et al. 2021, arXiv 2103.10609; as the authors' code computes it).

    Points lie at x + c α ḡ / mean|ḡ|, c evenly spaced from −η to η. At the first step there is no ḡ, and all
    points are the image: one stands for them all.

    Attributes:
        samples: points at each step, N.
        radius: the largest c, η.
    """

    samples: PositiveInt = 11
    radius: NonNegativeFloat = 7.0

    def estimates(self) -> int:
        return 1 + (self.iterations - 1) * self.samples

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        if "before" not in run.memory:
            mean = run.gradient(point)
        else:
            reach = run.problem.ball.per_pixel(run.step_size) * run.memory["before"]
            factors = torch.linspace(-self.radius, self.radius, self.samples, dtype=torch.float64).tolist()
            mean = sum((run.gradient(point + factor * reach) for factor in factors), torch.zeros_like(point))
            mean /= self.samples
        run.memory["before"] = normalised(mean)
        return mean
