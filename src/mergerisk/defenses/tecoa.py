"""Cross-entropy on the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from pydantic import PositiveInt

from mergerisk.defenses.training import AdversarialTraining
from mergerisk.validation import Epsilon, hyperparameters

if TYPE_CHECKING:
    import torch

    from mergerisk.defenses.training import Batch


@hyperparameters
class TeCoA(AdversarialTraining):
    """Cross-entropy of the frozen head's logits on adversarial images alone, crafted on the model as it is at
    every step (Mao et al. 2023, arXiv 2212.07016; under a linear probe's head, Madry et al. 2018).
    """

    epsilon: Epsilon = 1 / 255
    steps: PositiveInt = 2

    def loss(self, batch: Batch) -> torch.Tensor:
        def gain(images: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(batch.classifier(images), batch.labels, reduction="sum")

        return F.cross_entropy(batch.classifier(self.worst(batch, batch.classifier, gain)), batch.labels)
