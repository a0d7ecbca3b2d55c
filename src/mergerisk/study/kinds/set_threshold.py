"""Where a detector's alarms begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.defenses import Detector
    from mergerisk.study.variants.variant import SurrogateVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class SetThreshold(ArrayStage):
    """``threshold``, one number, from a task's calibration images; see
    :meth:`mergerisk.defenses.Detector.threshold`.

    Attributes:
        task: whose calibration images are looked at.
        detector: its name.
        parameters: its hyper-parameters, defaults filled in.
        of: what is defended.
        beside: what it is compared with.
        shown: images that are looked at.
    """

    kind: ClassVar[str] = "set_threshold"
    noun: ClassVar[str] = "set thresholds"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 5

    task: Input[Task]
    detector: str
    parameters: Mapping[str, Any]
    of: SurrogateVariant
    beside: SurrogateVariant
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images that are looked at, by both models."""
        return {"forward": self.shown * (self.of.passes + self.beside.passes)}

    def run(self, bench: Workbench) -> Result:
        """The threshold, float64."""
        import numpy as np

        from mergerisk.defenses.catalogue import DEFENSES

        made: Detector = DEFENSES.create(self.detector, self.parameters)
        found = made.threshold(
            self.of.classifier(bench),
            self.beside.classifier(bench),
            bench.task(self.task).calibration.images,
            batch_size=bench.compute.batch_size,
        )
        return Result({"threshold": np.array(found)})
