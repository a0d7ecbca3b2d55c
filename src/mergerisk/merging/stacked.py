"""A correction stacked on a merging method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.merging.method import Correction, MergingMethod, check_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging.batch_norm import BatchNormStatistics
    from mergerisk.merging.method import Calibration, Merged
    from mergerisk.models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Stacked(MergingMethod):
    """``method``, then ``correction`` on what it gives: ``ties+surgery``."""

    needs_calibration: ClassVar[bool] = True

    method: MergingMethod
    correction: Correction

    def merge(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        *,
        calibration: Mapping[str, Calibration] | None = None,
        seed: int = 0,
        batch_norm: BatchNormStatistics = "reestimate",
    ) -> Merged:
        # Before the merge, which may be long.
        calibration = check_calibration(experts, calibration, self.correction.name)
        merged = self.method.merge(base, experts, calibration=calibration, seed=seed, batch_norm=batch_norm)
        return self.correction.correct(merged, experts, calibration=calibration, seed=seed)

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],
        seed: int,
    ) -> Merged:
        return self.merge(base, experts, calibration=calibration, seed=seed)
