"""Training that attackers cannot repeat, since they do not know its draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F

from mergerisk.defenses.training import TrainingDefense
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    import torch

    from mergerisk.defenses.training import Batch


@hyperparameters
class PrivateTuning(TrainingDefense):
    """Cross-entropy, and nothing else: what is trained so is merely nobody else's. Own.

    After merging it is a short fine-tune of the merge; before merging, ingredients that are not public; before
    fine-tuning, a base that is not. It is worth no more than the secret: attackers who know of it do the same
    under draws of their own.
    """

    secret: ClassVar[bool] = True

    def loss(self, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(batch.classifier(batch.images), batch.labels)
