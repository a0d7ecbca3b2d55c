"""Whether the gradient an attack follows on the surrogate is the one that would hurt the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mergerisk.attacks.losses import Loss
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.gradients import ZERO_SURROGATE, ZERO_TARGET, Gradient, cosines, flat
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Probe


@hyperparameters
class GradientAlignment(ImageCause):
    """cos(g_s, g_t), and R = sign(g_s)ᵀ g_t / ‖g_t‖₁: of what an L∞ step along the target's own gradient would
    gain at first order, the share that the step made on the surrogate gains. For L2 that share is the cosine
    (Demontis et al. 2019, arXiv 1809.02861).

    g is the gradient of the loss at the clean image for the true label. Both lie in [−1, 1]; 1 for equal models, 0
    for orthogonal gradients. Where a gradient is zero neither is defined: the value is missing, and counted.

    Attributes:
        loss: ``cross_entropy``, in float64; or ``margin``, which never saturates and does not change with the
            scale of the logits.
    """

    name: ClassVar[str] = "gradient_alignment"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("gradient_alignment", "cosine", -1.0, 1.0, "attacks made on the surrogate transfer more"),
        Column("first_order_gain", "share of the white-box step's gain", -1.0, 1.0, "attacks transfer more"),
    )

    loss: Loss = "cross_entropy"

    @property
    def gradient(self) -> Gradient:
        """What is asked of both models."""
        return Gradient(loss=self.loss)

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.gradient,)

    def of_target(self) -> tuple[Probe, ...]:
        return (self.gradient,)

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        s, t = (flat(known[self.gradient]["gradient"]) for known in (seen.surrogate, seen.target))
        missing = {ZERO_SURROGATE: (s == 0).all(dim=1), ZERO_TARGET: (t == 0).all(dim=1)}
        gain = (s.sign() * t).sum(dim=1) / t.abs().sum(dim=1)
        return {"gradient_alignment": stated(cosines(s, t), missing), "first_order_gain": stated(gain, missing)}
