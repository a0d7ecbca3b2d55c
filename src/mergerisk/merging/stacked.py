"""A correction stacked on a merging method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from mergerisk.merging.checks import check_calibration, check_range, check_single_precision
from mergerisk.merging.material import below
from mergerisk.merging.method import Correction, MergingMethod
from mergerisk.models.on_disk.checkpoints import tensor_specs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging.batch_norm import BatchNormStatistics
    from mergerisk.merging.material import Calibration, Merged, Tensors
    from mergerisk.models.core.encoder import Encoder


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
        check_single_precision(base, self.correction.name)
        check_range(self.correction, tensor_specs(base.state()))
        merged = self.method.merge(base, experts, calibration=calibration, seed=seed, batch_norm=batch_norm)
        corrected = self.correction.correct(merged, experts, calibration=calibration, seed=seed)
        parts = {f"merge/{name}": tensor for name, tensor in merged.parts.items()}
        parts |= {f"correction/{name}": tensor for name, tensor in corrected.parts.items()}
        return replace(corrected, parts=parts)

    def restore(self, base: Encoder, parts: Tensors) -> Merged:
        merged = self.method.restore(base, below("merge/", parts))
        return replace(self.correction.apply(merged, below("correction/", parts)), parts=dict(parts))

    def held(self, count: int) -> float:
        return max(self.method.held(count), 4.0)

    def check_count(self, count: int) -> None:
        self.method.check_count(count)
