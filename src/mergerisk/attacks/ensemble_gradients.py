"""How an attack may follow several surrogates besides the gradient of what they say together.

Each algorithm is given a point and gives the gradient that the attack's loop accumulates and steps along, so that
it goes with every attack that takes its gradients from :meth:`mergerisk.attacks.Run.gradient`, with its momentum,
its input transformations and its gradient filters. What it draws and what it weighs belongs to the image.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from mergerisk.attacks.gradients import normalised
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from mergerisk.attacks.attack import Problem

_TINY = 1e-12
"""The least that is divided by."""


class Members(ABC):
    """Surrogates one by one, as the attack that follows them sees them: every gradient is of the loss that it
    makes grow, through its input transformations.

    Attributes:
        problem: what is attacked.
        step_size: α of the attack.
        memory: what is carried from step to step.
    """

    problem: Problem
    step_size: float
    memory: dict[str, torch.Tensor]

    @property
    @abstractmethod
    def count(self) -> int:
        """How many there are, K."""

    @abstractmethod
    def together(self, points: torch.Tensor) -> torch.Tensor:
        """The gradient of what the ensemble says."""

    @abstractmethod
    def one(self, number: int, points: torch.Tensor) -> torch.Tensor:
        """The gradient of one member."""

    @abstractmethod
    def chosen(
        self, numbers: torch.Tensor, points: torch.Tensor, scale: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The gradient of another member for each image.

        Args:
            numbers: int64, N: which.
            points: N × C × H × W.
            scale: N: what the logits are multiplied by before the loss is taken.
        """

    @abstractmethod
    def weighed(self, weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """The gradient of the sum of all members' logits, each times a weight: K × N."""

    @abstractmethod
    def logits(self, number: int, points: torch.Tensor) -> torch.Tensor:
        """What one member says of the points as they are, float64, N × classes, without a graph."""

    def stepped(self, points: torch.Tensor, along: torch.Tensor, size: float | None = None) -> torch.Tensor:
        """A step, of size α unless another is given, within ball and box."""
        ball = self.problem.ball
        return ball.project(points.add(ball.unit(along), alpha=self.step_size if size is None else size))

    def lost(self, number: int, points: torch.Tensor) -> torch.Tensor:
        """One member's cross-entropy of the true labels, float64, N."""
        return F.cross_entropy(self.logits(number, points), self.problem.labels, reduction="none")


class EnsembleAlgorithm(ABC):
    """A frozen dataclass of hyper-parameters that makes one gradient of several surrogates."""

    targeted: ClassVar[bool] = True
    """Whether targeted attacks can follow it."""

    @abstractmethod
    def passes(self, members: int) -> int:
        """Input gradients of one model that a gradient costs, forward passes counted as the parts of one that they
        are."""

    @abstractmethod
    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        """The gradient at a point, N × C × H × W → the same."""


@hyperparameters
class SVRE(EnsembleAlgorithm):
    """Stochastic variance reduction (Xiong et al. 2022, arXiv 2111.10752, algorithm 1): steps of its own from the
    point, each along the gradient of one member drawn for the image, less what that member's gradient differed by
    from the ensemble's at the point; the momentum that they gather is the gradient.

    A member's gradient at the point is taken once, where the authors' code takes it anew whenever the member is
    drawn; under input transformations that draw, the two differ in the draws. A filter is applied to the result,
    where that code blurs each inner gradient as well.

    Attributes:
        updates: inner steps per member; the authors' 16 for four.
        decay: of the inner momentum.
    """

    updates: PositiveInt = 4
    decay: NonNegativeFloat = 1.0

    def passes(self, members: int) -> int:
        """The ensemble's, each member's at the point, and one per inner step."""
        return (2 + self.updates) * members

    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        together = members.together(point)
        excess = torch.stack([members.one(k, point) - together for k in range(members.count)])
        rows = torch.arange(len(point), device=point.device)
        inner, momentum = point, torch.zeros_like(point)
        for _ in range(self.updates * members.count):
            drawn = members.problem.random.uniform(like=point) * members.count
            chosen = drawn.long().clamp(max=members.count - 1)
            found = members.chosen(chosen, inner) - excess[chosen, rows]
            momentum = normalised(found) + self.decay * momentum
            inner = members.stepped(inner, momentum)
        return momentum


@hyperparameters
class CWA(EnsembleAlgorithm):
    """Common weakness (Chen et al. 2024, arXiv 2303.09105, algorithm 1): a step back, down the ensemble's loss, as
    sharpness-aware minimisation takes one; from there a step up each member's loss in turn, along gradients of
    length 1 gathered in a momentum; how far that led is the gradient. With ``mi_fgsm`` it is the paper's MI-CWA.

    Step sizes follow ε as the authors' do at 16/255. The momentum lasts from step to step, as theirs does; the
    outer gradient is normalised per image, where their code divides by the size of the whole batch's.

    Attributes:
        back: the step back is ε over this number.
        step: of each member, as a multiple of ε; theirs is 250, so that most pixels go as far as they may.
        decay: of the inner momentum.
    """

    back: PositiveFloat = 15.0
    step: PositiveFloat = 250 * 255 / 16
    decay: NonNegativeFloat = 1.0

    def passes(self, members: int) -> int:
        """The ensemble's, and one of each member."""
        return 2 * members

    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        epsilon = members.problem.epsilon
        momentum = members.memory.get("cwa", torch.zeros_like(point))
        inner = members.stepped(point, members.together(point), -epsilon / self.back)
        for k in range(members.count):
            found = members.one(k, inner)
            length = torch.linalg.vector_norm(found, dim=(1, 2, 3), keepdim=True)
            momentum = self.decay * momentum + found / length.where(length > 0, 1.0)
            inner = members.problem.ball.project(inner.add(momentum, alpha=self.step * epsilon))
        members.memory["cwa"] = momentum
        return inner - point


@hyperparameters
class AdaEA(EnsembleAlgorithm):
    """Adaptive ensemble (Chen et al. 2023, arXiv 2308.02897): members whose own step raises the others' losses
    more than theirs weigh more in the fused logits, and pixels where the members' gradients disagree take no step.

    Weights are softmax(β ρ), ρ of member j the sum over the others i of L_i(x_j) / L_i(x_i), x_i the point after
    one step along i's gradient, and are the image's own, where the authors' code has one per batch. The agreement
    is the mean over all pairs of the cosine over channels; that code leaves the last member's row out. It starts
    at the images, without that code's noise.

    Attributes:
        beta: β, how sharply members are weighed.
        threshold: agreement below which a pixel takes no step, η; the authors' of their main results.
    """

    targeted: ClassVar[bool] = False

    beta: NonNegativeFloat = 10.0
    threshold: float = -0.3

    def passes(self, members: int) -> int:
        """Each member's, the fused one, and as forward passes every member's loss at every member's step."""
        return 2 * members + _forwards(members**2)

    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        found = [members.one(k, point) for k in range(members.count)]
        stepped = [members.stepped(point, gradient) for gradient in found]
        # Member × whose step it was × image.
        losses = torch.stack([torch.stack([members.lost(i, at) for at in stepped]) for i in range(len(found))])
        own = losses.diagonal().T.clamp(min=_TINY)
        ratios = losses / own[:, None]
        gained = ratios.sum(dim=0) - ratios.diagonal().T
        weights = (self.beta * gained).softmax(dim=0)
        agreement = torch.stack(
            [F.cosine_similarity(one, other, dim=1) for one, other in itertools.combinations(found, 2)]
        ).mean(dim=0)
        fused = members.weighed(weights.to(point), point)
        return fused * (agreement >= self.threshold)[:, None]


@hyperparameters
class SMER(EnsembleAlgorithm):
    """Stochastic mini-batches of surrogates with reweighing (Tang et al. 2024, CVPR): steps of its own from the
    point along one member's gradient after the other, in an order drawn for the image, each member once a round;
    meanwhile the weights that members' logits are multiplied by rise along the logarithm of the ensemble's loss.
    The momentum that the steps gather is the gradient.

    Weights start at 1, last from step to step, and are the image's own, where the authors' code shares them in a
    batch.

    Attributes:
        rounds: over the members.
        decay: of the inner momentum.
        rate: of the weights' descent.
        weight_decay: of the weights.
    """

    targeted: ClassVar[bool] = False

    rounds: PositiveInt = 4
    decay: NonNegativeFloat = 1.0
    rate: NonNegativeFloat = 0.02
    weight_decay: NonNegativeFloat = 0.002

    def passes(self, members: int) -> int:
        """One per inner step, and as forward passes what every member says there."""
        return self.rounds * (members + _forwards(members**2))

    def gradient(self, members: Members, point: torch.Tensor) -> torch.Tensor:
        weights = members.memory.get(
            "smer", torch.ones(len(point), members.count, device=point.device, dtype=point.dtype)
        )
        inner, momentum = point, torch.zeros_like(point)
        for _ in range(self.rounds):
            for chosen in members.problem.random.uniform(members.count, like=point).argsort(dim=1).T:
                scale = weights.gather(1, chosen[:, None])[:, 0]
                found = members.chosen(chosen, inner, scale)
                weights = self._reweighed(members, inner, weights)
                momentum = normalised(found) + self.decay * momentum
                inner = members.stepped(inner, momentum)
        members.memory["smer"] = weights
        return momentum

    def _reweighed(self, members: Members, at: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weights after a step down −log of the ensemble's cross-entropy, N × K."""
        said = torch.stack([members.logits(k, at) for k in range(members.count)], dim=1)  # N × K × classes
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            fused = (leaf[..., None] * said).mean(dim=1)
            lost = F.cross_entropy(fused, members.problem.labels, reduction="none").clamp(min=_TINY)
            (slope,) = torch.autograd.grad(-lost.log().sum(), leaf)
        return weights - self.rate * (slope + self.weight_decay * weights)


def _forwards(count: int) -> int:
    """Forward passes as gradients, of which one takes two and a half."""
    return -(-2 * count // 5)
