"""Images that were crafted on public models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F

from mergerisk.defenses import losses
from mergerisk.defenses.training import AdversarialTraining
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mergerisk.defenses.training import Batch
    from mergerisk.models.core.classifier import Classifier


@hyperparameters
class PubDef(AdversarialTraining):
    """The mean of CE(f(x)) and of CE(f(x + δ_k)) over public models k, on which δ_k is crafted (Sitawarin et al.
    2024, arXiv 2310.17645). It is a defense against who crafts on such models, and against nobody else.

    Public models never change, so that images crafted beforehand and while training are the same; the paper stores
    four copies of each, here every epoch has its own.
    """

    needs_public: ClassVar[bool] = True

    def passes(self, public: int) -> Mapping[str, int]:
        return {"training": 1 + public, "gradient": self.steps * public}

    def loss(self, batch: Batch) -> torch.Tensor:
        crafted = [self._crafted(batch, model, number) for number, model in enumerate(batch.public)]
        clean = batch.classifier(batch.images)
        return losses.pubdef(clean, [batch.classifier(images) for images in crafted], batch.labels)

    def _crafted(self, batch: Batch, model: Classifier, number: int) -> torch.Tensor:
        def gain(images: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(model(images), batch.labels, reduction="sum")

        return self.worst(batch, model, gain, draw=number)
