"""An attack that tunes the surrogate to each image on the way."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch.func import functional_call

from mergerisk.attacks.attack import Crafted
from mergerisk.attacks.losses import closeness
from mergerisk.attacks.neighbours import PGN
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from mergerisk.attacks.attack import Problem
    from mergerisk.attacks.gradient_attack import Oracle, Run

Weights = dict[str, torch.Tensor]


class _Tuned:
    """The gradient with respect to images of a classifier whose weights are replaced, and those weights.

    Attributes:
        weights: its parameters, at first the classifier's own, which stay as they are.
        velocity: what they last moved by, with momentum.
        gradient: images → the gradient, with the weights of the moment.
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier = classifier
        self.weights: Weights = {name: part.detach() for name, part in classifier.named_parameters()}
        self.velocity: Weights = {name: torch.zeros_like(part) for name, part in self.weights.items()}
        self.gradient: Oracle = self

    def says(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self.classifier, self.weights, (images,))
        return logits

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.gradient(images)


@hyperparameters
class AWT(PGN):
    """Adversarial weight tuning (Chen et al., AAAI 2025; as TransferAttack's code computes it): PGN on a surrogate
    that is trained against the attack, one step of sharpness-aware minimisation before each of the attack's.

    With L what the attack wants to grow, and F(θ) = L(x_adv; θ) + L(x; θ): θ′ = θ + ρ ∇F / ‖∇F‖, the norm over
    all parameters; v ← μ v + ∇F(θ′); θ ← θ − η v. Every image tunes weights of its own, from the surrogate's, and
    so is attacked by itself; the surrogate stays as it is. A head that is no parameter is not tuned. In
    TransferAttack's code a batch shares the weights, v goes on from batch to batch, and from the second step
    on the last ∇F(θ′) is added to ∇F.

    Tuning costs four gradients a step: at x_adv and at x, twice each.

    What is tuned is known by its logits alone: of an ensemble that averages losses by the mean log-softmax, of a
    classifier that is watched without its alarm.

    Attributes:
        learning_rate: η; TransferAttack's for ResNet-50, as ``sharpness``.
        sharpness: ρ.
        inertia: μ.
    """

    learning_rate: NonNegativeFloat = 0.002
    sharpness: NonNegativeFloat = 0.005
    inertia: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def estimates(self) -> int:
        return super().estimates() + 4 * self.iterations

    def perturb(self, problem: Problem) -> Crafted:
        each = [super(AWT, self).perturb(one) for one in problem.each()]
        return Crafted(
            torch.cat([one.adversarial for one in each]),
            torch.cat([one.zero_gradients for one in each]),
            after={steps: torch.cat([one.after[steps] for one in each]) for steps in problem.after},
        )

    @contextmanager
    def surrogate(self, problem: Problem) -> Iterator[Oracle]:
        tuned = _Tuned(problem.classifier)
        tuned.gradient = self.loss_gradient(problem, tuned.says)
        yield tuned

    def estimate(self, run: Run, point: torch.Tensor) -> torch.Tensor:
        tuned = run.oracle
        assert isinstance(tuned, _Tuned)
        if tuned.weights:
            self._tune(run, tuned)
        return super().estimate(run, point)

    def _tune(self, run: Run, tuned: _Tuned) -> None:
        weights = tuned.weights
        uphill = self._slope(run, tuned)
        length = torch.stack([part.double().square().sum() for part in uphill.values()]).sum().sqrt()
        if length > 0:
            tuned.weights = {
                name: part + (self.sharpness / length).to(part) * uphill[name] for name, part in weights.items()
            }
        slope = self._slope(run, tuned)
        tuned.velocity = {name: self.inertia * part + slope[name] for name, part in tuned.velocity.items()}
        tuned.weights = {name: part - self.learning_rate * tuned.velocity[name] for name, part in weights.items()}

    def _slope(self, run: Run, tuned: _Tuned) -> Weights:
        """The gradient with respect to the weights, of the sum of what is to grow at the adversarial and at the
        clean images, each the mean over its views."""
        problem = run.problem
        with torch.enable_grad(), self.computing(problem.images):
            tuned.weights = {name: part.detach().requires_grad_() for name, part in tuned.weights.items()}
            total = problem.images.new_zeros(())
            for points in (run.adversarial, problem.images):
                said = [self.logits(tuned.says, view) for view in run.views(points)]
                grown = [problem.sign * closeness(self.loss, logits, problem.classes).sum() for logits in said]
                total = total + torch.stack(grown).mean()
            places = list(tuned.weights.values())
            found = (
                torch.autograd.grad(total, places, allow_unused=True, materialize_grads=True)
                if total.requires_grad
                else map(torch.zeros_like, places)  # the gradient to the pixels, which is missing too, says why
            )
        tuned.weights = {name: part.detach() for name, part in tuned.weights.items()}
        return dict(zip(tuned.weights, found, strict=True))
