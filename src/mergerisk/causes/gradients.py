"""The gradient of a model's loss at the clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.attacks.losses import Loss, closeness
from mergerisk.causes.probe import Probe, Reads
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.causes.probe import Batch, Parts


@hyperparameters
class Gradient(Probe):
    """∇ₓ of the loss for the true label, in [0, 1] pixel space: ``gradient``, N × C × H × W.

    Attributes:
        loss: ``cross_entropy``, ``margin`` or ``logit``; see :data:`mergerisk.attacks.losses.Loss`.
        float64_logits: compute the loss in float64, in which softmax does not saturate at gaps of logits up to
            about 100.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"labels", "gradients"})

    loss: Loss = "cross_entropy"
    float64_logits: bool = True

    @property
    def pictures_per_image(self) -> int:
        return 1

    @property
    def gradients_per_image(self) -> int:
        return 1

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        return {"gradient": self.at(model, batch.images, batch.labels)}

    def at(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, graph: bool = False
    ) -> torch.Tensor:
        """The gradient at these images (with ``graph``, those given are the leaf, and it can be differentiated).

        Raises:
            UserError: it is NaN or infinite.
        """
        with torch.enable_grad():
            leaf = images if graph else images.detach().requires_grad_()
            logits = model(leaf)
            exact = logits.double() if self.float64_logits else logits
            # Summed, so that an image's gradient does not depend on its batch.
            (found,) = torch.autograd.grad(-closeness(self.loss, exact, labels).sum(), leaf, create_graph=graph)
        broken = int((~torch.isfinite(found.flatten(1).abs().sum(dim=1))).sum())
        if broken:
            raise UserError(f"a model's gradient is NaN or infinite for {broken} images; check its weights")
        return found


ZERO_SURROGATE = "the surrogate's gradient is zero"
ZERO_TARGET = "the target's gradient is zero"


def flat(rows: torch.Tensor) -> torch.Tensor:
    """N × … → N × D, float64: squares of small gradients do not underflow in it."""
    return rows.double().flatten(1)


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """float64, N: the cosine of each row of one with the same row of the other; NaN where one is zero."""
    a, b = flat(one), flat(other)
    found: torch.Tensor = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return found.clamp(-1.0, 1.0)
