"""Small input gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from mergerisk.defenses import losses
from mergerisk.defenses.training import TrainingDefense
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from mergerisk.defenses.training import Batch


@hyperparameters
class GradientPenalty(TrainingDefense):
    """Cross-entropy + λ ‖its gradient by the image‖² (Ross and Doshi-Velez 2018, arXiv 1711.09404).

    Attributes:
        coefficient: λ.
    """

    second_order: ClassVar[bool] = True

    coefficient: NonNegativeFloat = 0.1

    def passes(self, public: int) -> Mapping[str, int]:  # noqa: ARG002
        return {"training": 2, "gradient": 1}

    def loss(self, batch: Batch) -> torch.Tensor:
        return losses.gradient_penalty(batch.classifier, batch.images, batch.labels, self.coefficient)
