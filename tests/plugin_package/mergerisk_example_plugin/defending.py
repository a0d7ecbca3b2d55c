"""Defenses that mergerisk does not know of: one stands before a model, one trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from mergerisk.defenses import Defense, TrainingDefense
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch

    from mergerisk.defenses import Batch


class Mirrored(nn.Module):
    """A classifier that sees the image from right to left as well."""

    def __init__(self, classifier: nn.Module, share: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.share = share

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        straight, mirrored = self.classifier(images), self.classifier(images.flip(-1))
        logits: torch.Tensor = (1 - self.share) * straight + self.share * mirrored
        return logits


@hyperparameters
class BothSides(Defense):
    """The mean of the logits that the classifier gives of the image and of its mirror image.

    Attributes:
        share: of the mirror image.
    """

    share: float = 0.5

    def defend(self, classifier: nn.Module) -> nn.Module:
        return Mirrored(classifier, self.share)


@hyperparameters
class StayClose(TrainingDefense):
    """Cross-entropy, and features that stay close to what they were.

    Attributes:
        weight: of the features' mean squared change.
    """

    weight: float = 1.0

    def loss(self, batch: Batch) -> torch.Tensor:
        now, before = (model.encoder(batch.images) for model in (batch.classifier, batch.original))
        return F.cross_entropy(batch.classifier.head(now), batch.labels) + self.weight * F.mse_loss(now, before)
