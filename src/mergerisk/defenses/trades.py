"""Clean accuracy traded for answers that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from mergerisk.defenses import losses
from mergerisk.defenses.training import AdversarialTraining
from mergerisk.defenses.weights import moved
from mergerisk.validation import Epsilon, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses.training import Batch


@hyperparameters
class Trades(AdversarialTraining):
    """CE(f(x)) + β KL(f(x) ‖ f(x')) (Zhang et al. 2019, arXiv 1901.08573), x' that maximises the KL, from normal
    noise of 0.001 around x, as in the authors' code.

    Attributes:
        beta: β.
        awp: γ of adversarial weight perturbation (Wu et al. 2020, arXiv 2004.05884): every tensor w of two or more
            dimensions is first moved by γ‖w‖ up the loss's gradient, and comes back before the step; 0 for none,
            .005 in the paper.
    """

    epsilon: Epsilon = 0.031
    step_size: PositiveFloat | None = 0.007
    beta: NonNegativeFloat = 6.0
    awp: NonNegativeFloat = 0.0

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 2 if self.awp == 0 else 4, "gradient": self.steps}

    def loss(self, batch: Batch) -> torch.Tensor:
        clean = batch.classifier(batch.images)
        return self._loss(batch, clean, self._worst(batch, clean))

    def differentiate(self, batch: Batch) -> None:
        if self.awp == 0:
            super().differentiate(batch)
            return
        clean = batch.classifier(batch.images)
        adversarial, weights = self._worst(batch, clean), batch.weights
        slopes = torch.autograd.grad(self._loss(batch, clean, adversarial), weights, allow_unused=True)
        shifts = [
            self.awp * weight.norm() * slope / slope.norm().clamp_min(_TINY)
            if slope is not None and weight.ndim > 1
            else None
            for weight, slope in zip(weights, slopes, strict=True)
        ]
        with moved(weights, shifts):
            self._loss(batch, batch.classifier(batch.images), adversarial).backward()

    def _worst(self, batch: Batch, clean: torch.Tensor) -> torch.Tensor:
        before = clean.detach()

        def gain(images: torch.Tensor) -> torch.Tensor:
            return losses.divergence(before, batch.classifier(images)).sum()

        return self.worst(batch, batch.classifier, gain, noise=_NOISE)

    def _loss(self, batch: Batch, clean: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        return losses.trades(clean, batch.classifier(adversarial), batch.labels, self.beta)


_NOISE = 1e-3
_TINY = 1e-20
"""Added to no gradient of any length: below it there is none."""
