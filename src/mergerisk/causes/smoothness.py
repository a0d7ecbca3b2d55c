"""How curved the two models' losses are around the clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import PositiveInt

from mergerisk.attacks.losses import Loss
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.curvature import Curvature
from mergerisk.causes.given import Need
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Probe

_UNKNOWN = "less smooth; published signs conflict, presume none"


@hyperparameters
class Smoothness(ImageCause):
    """The eigenvalue λ of largest magnitude of the Hessian of the loss in the pixels, of surrogate and target, by
    Lanczos' iteration on Hessian-vector products; and a stand-in that takes one more gradient,
    ‖g(x+u) − g(x)‖ / ‖u‖ with a random u of Euclidean length ε (Zhang et al. 2023, arXiv 2307.07873).

    λ has the sign of the eigenvalue; a stand-in lies in [0, ∞), and for a quadratic loss never exceeds |λ|. Large
    magnitudes mean a loss that is *less* smooth. Smooth surrogates are said to craft better; a smooth pair is said
    to transfer less (Yang et al. 2021, arXiv 2104.00671): both models are measured, and no sign is presumed. A
    ReLU network's curvature is that of the loss on top of it.

    Attributes:
        loss: see :class:`~mergerisk.causes.gradients.Gradient`.
        products: Hessian-vector products per image and model, at most. With as many as there are pixels λ is
            exact; with fewer, its magnitude is a little too small.
    """

    name: ClassVar[str] = "smoothness"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("curvature_surrogate", "loss per squared pixel value", None, None, _UNKNOWN),
        Column("curvature_target", "loss per squared pixel value", None, None, _UNKNOWN),
        Column("gradient_change_surrogate", "loss per squared pixel value", 0.0, None, _UNKNOWN),
        Column("gradient_change_target", "loss per squared pixel value", 0.0, None, _UNKNOWN),
    )

    loss: Loss = "cross_entropy"
    products: PositiveInt = 20

    @property
    def curvature(self) -> Curvature:
        """What is asked of both models."""
        return Curvature(loss=self.loss, products=self.products)

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.curvature,)

    def of_target(self) -> tuple[Probe, ...]:
        return (self.curvature,)

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        sides = {"surrogate": seen.surrogate[self.curvature], "target": seen.target[self.curvature]}
        curvatures = {f"curvature_{side}": stated(found["curvature"]) for side, found in sides.items()}
        changes = {
            f"gradient_change_{side}": stated(
                found["change"], {"the budget is zero": torch.isnan(found["change"])}
            )
            for side, found in sides.items()
        }
        return curvatures | changes
