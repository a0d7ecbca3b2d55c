"""An attacker's model that is the average of checkpoints of their own fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Head, State
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Average(ModelStage):
    """A fine-tune trained on at a constant learning rate, and the mean of what it passed; see
    :func:`mergerisk.finetuning.average_checkpoints`. BatchNorm's statistics are estimated anew on the images that
    it learnt from.

    Attributes:
        task: the task.
        head: its head.
        backbone: what was fine-tuned.
        fine_tuned: the attacker's own fine-tune, where it starts.
        collecting: hyper-parameters of :class:`mergerisk.finetuning.Collecting`.
        name: the task's.
        seed: of what is drawn.
        images: training images.
    """

    kind: ClassVar[str] = "average"
    noun: ClassVar[str] = "average checkpoints"
    version: ClassVar[int] = 1
    rank: ClassVar[int] = 3

    task: Input[Task]
    head: Input[Head]
    backbone: Backbone
    fine_tuned: Input[State]
    collecting: Mapping[str, Any]
    name: str
    seed: int
    images: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images that are trained on, times epochs."""
        return {"training": self.images * self.collecting["epochs"]}

    def run(self, bench: Workbench) -> Result:
        """The averaged encoder's parameters by name."""
        from mergerisk.finetuning import Collecting, average_checkpoints
        from mergerisk.merging import Calibration
        from mergerisk.merging.batch_norm import batch_norm_layers, reestimate_batch_norm

        start = bench.model(self.backbone, self.fine_tuned).encoder
        head, task = bench.head(self.head), bench.task(self.task)
        made = average_checkpoints(start, head, task, recipe=Collecting(**self.collecting), seed=self.seed)
        state = made.state()
        if batch_norm_layers(made.backbone):
            pool = {self.name: Calibration(task.training_split("fine-tuning").images, head)}
            state = {**state, **reestimate_batch_norm(made, [self.name], pool, self.seed)}
        return Result(to_arrays(state))
