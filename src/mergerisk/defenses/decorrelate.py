"""Gradients that are none of the public models'."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat

from mergerisk.defenses import losses
from mergerisk.defenses.training import AdversarialTraining
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses.training import Batch


@hyperparameters
class Decorrelate(AdversarialTraining):
    """CE(f(x)) + c · mean |cos(g, g_k)| + λ ‖g‖², g the gradient of the loss by the image at the worst image
    nearby, g_k that of public model k there (after GAL, Kariyappa and Qureshi 2019, arXiv 1901.09981, and TRS,
    Yang et al. 2021, arXiv 2104.00671, which train ensembles; here all models but one stay as they are).

    What it lowers may be the gradient's use rather than the model's weakness: attackers who know must decide.

    Attributes:
        coefficient: c.
        smoothness: λ.
    """

    needs_public: ClassVar[bool] = True
    second_order: ClassVar[bool] = True

    coefficient: NonNegativeFloat = 2.0
    smoothness: NonNegativeFloat = 2.0

    def passes(self, public: int) -> Mapping[str, int]:
        return {"training": 3, "gradient": self.steps + public + 1}

    def loss(self, batch: Batch) -> torch.Tensor:
        def gain(images: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(batch.classifier(images), batch.labels, reduction="sum")

        points = self.worst(batch, batch.classifier, gain)
        own = losses.input_gradients(batch.classifier, points, batch.labels, differentiable=True)
        others = [losses.input_gradients(model, points, batch.labels) for model in batch.public]
        clean = F.cross_entropy(batch.classifier(batch.images), batch.labels)
        return clean + losses.decorrelation(own, others, self.coefficient, self.smoothness)
