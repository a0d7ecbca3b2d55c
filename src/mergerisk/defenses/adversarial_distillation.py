"""The model's own clean answers, kept on the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field

from mergerisk.defenses import losses
from mergerisk.defenses.training import AdversarialTraining
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses.training import Batch


@hyperparameters
class AdversarialDistillation(AdversarialTraining):
    """(1 − w) KL(t(x) ‖ f(x)) + w KL(t(x) ‖ f(x')), x' that maximises the second, as in RSLAD (Zi et al. 2021,
    arXiv 2108.07969). The teacher t is the model as it was, since there is no robust one here: own. It reads no
    label.

    Attributes:
        share: w; 5/6 in the paper.
    """

    needs_labels: ClassVar[bool] = False

    share: Annotated[float, Field(ge=0, le=1)] = 5 / 6

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 2, "gradient": self.steps, "forward": 1}

    def loss(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            teacher = batch.original(batch.images)

        def gain(images: torch.Tensor) -> torch.Tensor:
            return losses.divergence(teacher, batch.classifier(images)).sum()

        adversarial = self.worst(batch, batch.classifier, gain)
        clean, attacked = batch.classifier(batch.images), batch.classifier(adversarial)
        return losses.distillation(teacher, clean, attacked, self.share)
