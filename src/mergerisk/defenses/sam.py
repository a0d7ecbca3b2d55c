"""Flat minima."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat

from mergerisk.defenses.training import TrainingDefense
from mergerisk.defenses.weights import moved
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses.training import Batch


@hyperparameters
class SAM(TrainingDefense):
    """Cross-entropy with the gradient of the worst weights nearby, w + ρ g/‖g‖, over all weights together (Foret
    et al. 2021, arXiv 2010.01412, algorithm 1). Flat experts merge better; as surrogates they may transfer better
    too.

    Attributes:
        rho: ρ.
    """

    rho: PositiveFloat = 0.1

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 2}

    def loss(self, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(batch.classifier(batch.images), batch.labels)

    def differentiate(self, batch: Batch) -> None:
        weights = batch.weights
        slopes = torch.autograd.grad(self.loss(batch), weights, allow_unused=True)
        length = torch.stack([slope.norm() for slope in slopes if slope is not None]).norm().clamp_min(_TINY)
        with moved(weights, [None if slope is None else self.rho * slope / length for slope in slopes]):
            super().differentiate(batch)


_TINY = 1e-20
