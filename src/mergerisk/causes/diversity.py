"""Whether features that a surrogate mistakes for another image's fool the target too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from mergerisk.attacks.losses import closeness
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.lookalikes import Lookalikes
from mergerisk.causes.probe import Reads
from mergerisk.causes.result import Column, Values, stated
from mergerisk.errors import UserError
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Batch, Known, Parts, Probe


@hyperparameters
class Diversity(ImageCause):
    """The target's cross-entropy, for the label y' of another image x', on an image x moved within an L∞ ball so
    that the surrogate's features of it are those of x': min over δ of ‖φ_s^l(x + δ) − φ_s^l(x')‖², by 10 steps
    with momentum (DVERGE, Yang et al. 2020, arXiv 2009.14720, equations 1 and 2). The mean over several blocks l,
    of which the paper draws one.

    In nats, in [0, ∞). A *small* value means that the target sees x' as well: the two share features that people
    do not see. One direction only: the published figure is the mean of both. x' is drawn per (seed, image) from
    the images of the call with another label; missing where there is none.

    Attributes:
        layers: so many blocks, evenly spaced, the last among them; 0 for the final features alone.
        radius: of the ball; the call's ε is not used.
        steps: of ``step_size`` each.
        step_size: in pixel units.
    """

    name: ClassVar[str] = "diversity"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("diversity", "nats", 0.0, None, "the models share fewer features, so attacks transfer less"),
    )
    across_reads: ClassVar[frozenset[Reads]] = frozenset({"logits"})

    layers: Annotated[int, Field(ge=0)] = 3
    radius: PositiveFloat = 0.07
    steps: PositiveInt = 10
    step_size: PositiveFloat = 0.007

    @property
    def lookalikes(self) -> Lookalikes:
        """What is asked of the surrogate."""
        return Lookalikes(layers=self.layers, radius=self.radius, steps=self.steps, step_size=self.step_size)

    @property
    def forwards_per_pair(self) -> int:
        return max(1, self.layers)

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.lookalikes,)

    def check_pair(self, surrogate: nn.Module, target: nn.Module) -> None:  # noqa: ARG002
        try:
            self.lookalikes.positions(surrogate)
        except UserError as error:
            raise UserError(
                "diversity: the surrogate has no list of blocks; layers=0 matches its final features"
            ) from error

    def across(self, surrogate: Known, target: nn.Module, batch: Batch) -> Parts:
        made = surrogate[self.lookalikes]
        labels = made["labels"].clamp(min=0).to(batch.labels)
        with torch.no_grad():
            losses = [
                -closeness("cross_entropy", target(moved.to(batch.images)).double(), labels)
                for name, moved in made.items()
                if name != "labels"
            ]
        return {"loss": torch.stack(losses).mean(dim=0).cpu()}

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        alone = seen.surrogate[self.lookalikes]["labels"] < 0
        return {"diversity": stated(seen.across["loss"], {"no other label among the images": alone})}
