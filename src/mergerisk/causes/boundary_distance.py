"""How far the target's decision boundary is, and how much farther than the surrogate's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from mergerisk.causes.boundaries import Boundary, Line
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.gradients import ZERO_SURROGATE
from mergerisk.causes.probe import Reads
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Batch, Known, Parts, Probe

_WRONG = "the target errs on the clean image"
_SURROGATE_WRONG = "the surrogate errs on the clean image"


@hyperparameters
class BoundaryDistance(ImageCause):
    """How far a clean image is from where the target errs: to first order, min over wrong classes i of
    (z_y − z_i) / ‖∇ₓ(z_y − z_i)‖ in the norm dual to the budget's; and by line search along the step that gains
    most on the surrogate (the sign of its gradient for L∞), for both models. The gap between those two is the
    inter-boundary distance of Tramèr et al. (2017, arXiv 1704.03453).

    In pixel units, in the budget's norm; a distance is 0 or more, a gap has a sign. Logits, not probabilities, are
    divided by gradients of logits, so that the first does not change with the scale of the logits. Missing where a
    model errs on the clean image, where no class can be reached at first order, or where the line meets no
    boundary within ``reach``.

    Attributes:
        classes: how many wrong classes are tried, those with the largest logits first; each costs a backward pass.
            With one less than the task has, the minimum is exact.
        reach: how far the line search looks.
        points: it looks at on the way, at equal distances; nearer places where a model errs in between are missed.
        halvings: by which a crossing is narrowed down: to reach / points / 2^halvings.
    """

    name: ClassVar[str] = "boundary_distance"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "boundary_distance", "pixel value, in the budget's norm", 0.0, None, "the target is harder to fool"
        ),
        Column("boundary_along_surrogate", "pixel value", 0.0, None, "the surrogate is harder to fool"),
        Column("boundary_along_target", "pixel value", 0.0, None, "attacks transfer less"),
        Column("boundary_gap", "pixel value, target's less surrogate's", None, None, "attacks transfer less"),
    )
    across_reads: ClassVar[frozenset[Reads]] = frozenset({"logits"})

    classes: PositiveInt = 9
    reach: PositiveFloat = 64 / 255
    points: PositiveInt = 16
    halvings: NonNegativeInt = 6

    @property
    def boundary(self) -> Boundary:
        """What is asked of the target."""
        return Boundary(classes=self.classes)

    @property
    def line(self) -> Line:
        """What is asked of the surrogate."""
        return Line(reach=self.reach, points=self.points, halvings=self.halvings)

    @property
    def forwards_per_pair(self) -> int:
        return 1 + self.points + self.halvings

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (self.line,)

    def of_target(self) -> tuple[Probe, ...]:
        return (self.boundary,)

    def across(self, surrogate: Known, target: nn.Module, batch: Batch) -> Parts:
        direction = surrogate[self.line]["direction"]
        return {"crossing": self.line.along(target, batch, direction).cpu()}

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        found, own = seen.target[self.boundary], seen.surrogate[self.line]
        wrong = {_WRONG: ~found["right"]}
        still = {ZERO_SURROGATE: (own["direction"] == 0).flatten(1).all(dim=1)}
        s, t = own["crossing"], seen.across["crossing"]
        beyond = "no boundary within reach"
        return {
            "boundary_distance": stated(
                found["distance"], wrong | {"the target's logits do not move": torch.isinf(found["distance"])}
            ),
            "boundary_along_surrogate": stated(s, {_SURROGATE_WRONG: s == 0} | still | {beyond: torch.isinf(s)}),
            "boundary_along_target": stated(t, wrong | still | {beyond: torch.isinf(t)}),
            "boundary_gap": stated(
                t - s,
                wrong | {_SURROGATE_WRONG: s == 0} | still | {beyond: torch.isinf(s) | torch.isinf(t)},
            ),
        }
