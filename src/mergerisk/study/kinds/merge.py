"""A merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.merging import LazyExperts
    from mergerisk.models import Encoder, State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.calibrating import CalibrationData
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Merge(ModelStage):
    """What a merge can be restored from.

    Attributes:
        backbone: what the ingredients were made from.
        method: the merging method.
        parameters: its hyper-parameters, defaults filled in.
        ingredients: name → model; their order is part of the recipe, since coefficients belong to places.
        calibration: the images that the method may read; None if it reads none.
        seed: of what is drawn; None if nothing is.
        images: what it passes through models, by what :data:`mergerisk.study.stage.COSTS` lists.
    """

    kind: ClassVar[str] = "merge"
    noun: ClassVar[str] = "merge"
    version: ClassVar[int] = 4
    rank: ClassVar[int] = 3

    backbone: Backbone
    method: str
    parameters: Mapping[str, Any]
    ingredients: Mapping[str, Input[State]]
    calibration: CalibrationData | None
    seed: int | None
    images: Mapping[str, int] = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Passes of calibration images, as the method says."""
        return self.images

    @property
    def held(self) -> float:
        """As the method says."""
        from mergerisk import merging

        return merging.create(self.method, **self.parameters).held(len(self.ingredients))

    def run(self, bench: Workbench) -> Result:
        """What the method restores the merged model from, arrays by name."""
        from mergerisk import merging

        merged = merging.create(self.method, **self.parameters).merge(
            self.start(bench),
            self.experts(bench),
            calibration=bench.calibration(self.calibration),
            seed=self.seed or 0,
        )
        coefficients = {name: values.tolist() for name, values in merged.coefficients.items()}
        made_by = {"method": self.method, "parameters": self.parameters}
        return Result(to_arrays(merged.parts), made_by | {"coefficients": coefficients})

    def start(self, bench: Workbench) -> Encoder:
        """θ0: the pretrained encoder."""
        return bench.base(self.backbone)

    def experts(self, bench: Workbench) -> LazyExperts:
        """What is merged."""
        return bench.experts(self.backbone, self.ingredients)
