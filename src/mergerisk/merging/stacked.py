"""A correction stacked on a merging method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from mergerisk.merging.method import Correction, MergingMethod, check_calibration, check_single_precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging.batch_norm import BatchNormStatistics
    from mergerisk.merging.method import Calibration, Merged, Tensors
    from mergerisk.models.encoder import Encoder, State


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
        merged = self.method.merge(base, experts, calibration=calibration, seed=seed, batch_norm=batch_norm)
        return self._corrected(merged, experts, calibration, seed)

    def make(
        self,
        base: Encoder,
        experts: Mapping[str, Encoder],
        calibration: Mapping[str, Calibration],
        seed: int,
    ) -> Merged:
        return self._corrected(self.method.make(base, experts, calibration, seed), experts, calibration, seed)

    def check_count(self, count: int) -> None:
        self.method.check_count(count)

    def restore(self, base: Encoder, parts: State) -> Merged:
        merged = self.method.restore(base, _below("merge/", parts))
        return replace(self.correction.apply(merged, _below("correction/", parts)), parts=parts)

    def _corrected(
        self, merged: Merged, experts: Mapping[str, Encoder], calibration: Mapping[str, Calibration], seed: int
    ) -> Merged:
        corrected = self.correction.correct(merged, experts, calibration=calibration, seed=seed)
        parts = {f"merge/{name}": tensor for name, tensor in merged.parts.items()}
        parts |= {f"correction/{name}": tensor for name, tensor in corrected.parts.items()}
        return replace(corrected, parts=parts)


def _below(prefix: str, parts: Tensors) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in parts.items() if name.startswith(prefix)}
