"""What targets say of images that were not attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.attacked import attacked
from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.results import ArrayStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.study.variants.variant import TargetVariant
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Clean(ArrayStage):
    """Predictions, columns of the target × images, with the images' ``labels`` and ``indices``.

    Attributes:
        task: whose test images are shown.
        target: who is asked.
        images: None for the whole test split; else how many, those that are attacked.
        shown: images that are shown.
    """

    kind: ClassVar[str] = "clean"
    noun: ClassVar[str] = "clean accuracy"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 5

    task: Input[Task]
    target: TargetVariant
    images: int | None
    shown: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images that are shown, times the encoders that each passes."""
        return {self.target.answers_by: self.shown * self.target.passes}

    def run(self, bench: Workbench) -> Result:
        """Classes that the targets name: ``predictions``, columns × images, int64; and the images' labels."""
        import torch

        task, count = bench.task(self.task), self.images
        indices = torch.arange(len(task.test.labels)) if count is None else attacked(task, count)
        # Not all of them by index: that would be to read them all at once.
        predictions = self.target.answer(bench, task.test.images if count is None else task.test.images[indices])
        return Result(
            {
                "predictions": predictions.numpy(),
                "labels": task.test.labels[indices].numpy(),
                "indices": indices.numpy(),
            }
        )
