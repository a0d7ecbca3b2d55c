"""How steep the target's loss is, by itself and beside the surrogate's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mergerisk.attacks.losses import Loss
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.gradients import ZERO_SURROGATE, Gradient, flat
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Probe

_NORMS = {"l1": 1, "l2": 2}


@hyperparameters
class GradientSize(ImageCause):
    """‖g_t‖₁, what the loss gains at first order per unit of L∞ budget, and ‖g_t‖₂, per unit of L2 budget; and
    both over the surrogate's, ‖g_t‖ / ‖g_s‖ (Demontis et al. 2019, arXiv 1809.02861; the ratio
    explains transfer that goes one way only, Petrov and Hospedales 2019, arXiv 1904.07980).

    Sizes are 0 or more, in loss per unit of pixel value. A ratio over a zero gradient is missing.

    Attributes:
        loss: see :class:`~mergerisk.causes.gradients.Gradient`.
    """

    name: ClassVar[str] = "gradient_size"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("gradient_size_l1", "loss per unit of L∞ budget", 0.0, None, "the target is easier to fool"),
        Column("gradient_size_l2", "loss per unit of L2 budget", 0.0, None, "the target is easier to fool"),
        Column("gradient_ratio_l1", "ratio", 0.0, None, "this direction transfers more than its reverse"),
        Column("gradient_ratio_l2", "ratio", 0.0, None, "this direction transfers more than its reverse"),
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
        sizes = {name: (s.norm(p=p, dim=1), t.norm(p=p, dim=1)) for name, p in _NORMS.items()}
        own = {f"gradient_size_{name}": stated(target) for name, (_, target) in sizes.items()}
        ratios = {
            f"gradient_ratio_{name}": stated(target / surrogate, {ZERO_SURROGATE: surrogate == 0})
            for name, (surrogate, target) in sizes.items()
        }
        return own | ratios
