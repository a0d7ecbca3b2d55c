"""A point between the base and a merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class OnPath(ModelStage):
    """The weights θ0 + a (θm − θ0); see :func:`mergerisk.merging.on_path`.

    Attributes:
        backbone: θ0.
        merge: θm.
        at: a.
        calibration: the images that BatchNorm's statistics are estimated on; None of models without any.
        seed: of the order of these images; None without them.
        images: what it passes through models, by what :data:`mergerisk.study.stage.COSTS` lists.
    """

    kind: ClassVar[str] = "merge"
    noun: ClassVar[str] = "merge"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 4

    backbone: Backbone
    merge: Input[State]
    at: float
    calibration: CalibrationData | None
    seed: int | None
    images: Mapping[str, int] = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Passes of calibration images, where BatchNorm is estimated anew."""
        return self.images

    def run(self, bench: Workbench) -> Result:
        """The encoder's parameters by name, between the base's and the merge's."""
        from mergerisk.merging import on_path
        from mergerisk.merging.batch_norm import reestimate_batch_norm

        base = bench.base(self.backbone)
        state = on_path(base.state(), bench.model(self.backbone, self.merge).encoder.state(), self.at)
        calibration = bench.calibration(self.calibration)
        if calibration is not None:
            state |= reestimate_batch_norm(base.with_state(state), calibration, calibration, self.seed or 0)
        return Result(to_arrays(state))
