"""A correction stacked on a merging method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.merging.method import MergingMethod, check_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging.method import Calibration, Merged
    from mergerisk.merging.surgery import Surgery
    from mergerisk.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Stacked(MergingMethod):
    """``method``, then ``correction`` on what it gives: ``ties+surgery``."""

    needs_calibration: ClassVar[bool] = True

    method: MergingMethod
    correction: Surgery

    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
    ) -> Merged:
        # Before the merge, which may be long.
        calibration = check_calibration(experts, calibration, self.correction.name)
        merged = self.method.merge(base, experts, calibration=calibration, seed=seed)
        return self.correction.correct(merged, experts, calibration=calibration, seed=seed)
