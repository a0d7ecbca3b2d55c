"""A correction of a merge's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import PartsStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Correct(PartsStage):
    """The per-task parts of a correction.

    Attributes:
        backbone: what the ingredients were made from.
        correction: ``surgery``, say.
        parameters: its hyper-parameters, defaults filled in.
        merge: what is corrected.
        ingredients: name → model; see :class:`~mergerisk.study.kinds.merge.Merge`.
        calibration: the images that it may read.
        seed: of what is drawn.
        images: what it passes through models, by what :data:`mergerisk.study.stage.COSTS` lists.
    """

    kind: ClassVar[str] = "correct"
    noun: ClassVar[str] = "correct merges"
    version: ClassVar[int] = 4
    rank: ClassVar[int] = 4

    backbone: Backbone
    correction: str
    parameters: Mapping[str, Any]
    merge: Input[State]
    ingredients: Mapping[str, Input[State]]
    calibration: CalibrationData
    seed: int
    images: Mapping[str, int] = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Passes of calibration images, as the correction says."""
        return self.images

    @property
    def held(self) -> float:
        """The base, the merge and an expert; adapters are small."""
        return 3.0

    def run(self, bench: Workbench) -> Result:
        """The correction's parameters by name, fitted to the calibration images."""
        from mergerisk.merging.catalogue import CORRECTIONS

        parts = CORRECTIONS.create(self.correction, self.parameters).fit(
            bench.model(self.backbone, self.merge),
            bench.experts(self.backbone, self.ingredients),
            calibration=bench.calibration(self.calibration),
            seed=self.seed,
        )
        return Result(to_arrays(parts), {"correction": self.correction, "parameters": self.parameters})
