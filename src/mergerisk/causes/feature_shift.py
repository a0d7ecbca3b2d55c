"""Whether the shift that an attack causes in the surrogate's features survives in the target's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import PositiveInt

from mergerisk.causes.attacked import Attacked, AttackName
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.gradients import cosines, flat
from mergerisk.causes.probe import Reads, features_of
from mergerisk.causes.representations import FINAL, Features
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Batch, Known, Parts, Probe


@hyperparameters
class FeatureShift(ImageCause):
    """‖φ_t(x + δ_s) − φ_t(x)‖ / ‖φ_t(x)‖ of an image attacked on the surrogate, the same of the surrogate, and the
    cosine of the two shifts. Our own proposal, not a published measure: it stands between attack and answer.

    Shifts lie in [0, ∞), the cosine in [−1, 1]; for equal models it is 1. Missing where features have length zero
    or do not move, and the cosine for features of different widths.

    Attributes:
        attack: that the surrogate is attacked with, within the call's budget.
        steps: it takes; None for its own number.
    """

    name: ClassVar[str] = "feature_shift"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images", "labels"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("feature_shift", "share of the feature's length", 0.0, None, "the attack reaches the target"),
        Column("feature_shift_surrogate", "share of the feature's length", 0.0, None, "the attack is strong"),
        Column("feature_shift_cosine", "cosine", -1.0, 1.0, "the attack's direction survives the merge"),
    )
    across_reads: ClassVar[frozenset[Reads]] = frozenset({"features"})

    attack: AttackName = "i_fgsm"
    steps: PositiveInt | None = None

    @property
    def attacked(self) -> Attacked:
        """What is asked of the surrogate besides its features."""
        return Attacked(attack=self.attack, steps=self.steps)

    @property
    def forwards_per_pair(self) -> int:
        return 1

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (Features(), self.attacked)

    def of_target(self) -> tuple[Probe, ...]:
        return (Features(),)

    def across(self, surrogate: Known, target: nn.Module, batch: Batch) -> Parts:
        adversarial = surrogate[self.attacked]["adversarial"].to(batch.images)
        with torch.no_grad():
            return {FINAL: features_of(target, adversarial).cpu()}

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        clean = {"surrogate": seen.surrogate[Features()][FINAL], "target": seen.target[Features()][FINAL]}
        after = {"surrogate": seen.surrogate[self.attacked][FINAL], "target": seen.across[FINAL]}
        shifts = {side: flat(after[side]) - flat(clean[side]) for side in clean}
        short = {side: flat(clean[side]).norm(dim=1) == 0 for side in clean}
        sizes = {side: shifts[side].norm(dim=1) / flat(clean[side]).norm(dim=1) for side in clean}
        still = {f"the {side}'s features do not move": (shift == 0).all(dim=1) for side, shift in shifts.items()}
        if shifts["surrogate"].shape == shifts["target"].shape:
            cosine = stated(cosines(shifts["surrogate"], shifts["target"]), still)
        else:
            every = torch.ones(len(seen.labels), dtype=torch.bool)
            cosine = stated(torch.zeros(len(every)), {"the features have different widths": every})
        zero = "the {}'s clean features have length zero"
        return {
            "feature_shift": stated(sizes["target"], {zero.format("target"): short["target"]}),
            "feature_shift_surrogate": stated(sizes["surrogate"], {zero.format("surrogate"): short["surrogate"]}),
            "feature_shift_cosine": cosine,
        }
