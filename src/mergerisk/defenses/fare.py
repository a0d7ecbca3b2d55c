"""Features that stay where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveFloat

from mergerisk.defenses import losses
from mergerisk.defenses.training import AdversarialTraining
from mergerisk.validation import Epsilon, hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses.training import Batch


@hyperparameters
class Fare(AdversarialTraining):
    """min over the encoder of max ‖φ(x') − φ₀(x)‖², φ₀ the encoder as it was (Schlarmann et al. 2024, arXiv
    2402.12336): the embedding is not normalised, and no label is read, so that all heads keep working.
    """

    needs_labels: ClassVar[bool] = False

    learning_rate: PositiveFloat = 1e-5
    weight_decay: NonNegativeFloat = 1e-4
    epsilon: Epsilon = 4 / 255

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 1, "gradient": self.steps, "forward": 1}

    def loss(self, batch: Batch) -> torch.Tensor:
        encoder = batch.classifier.encoder
        with torch.no_grad():
            original = batch.original.encoder(batch.images)

        def gain(images: torch.Tensor) -> torch.Tensor:
            apart: torch.Tensor = encoder(images) - original
            return apart.square().sum()

        return losses.fare(encoder(self.worst(batch, batch.classifier, gain)), original)
