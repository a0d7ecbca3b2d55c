"""An expert that is fine-tuned in the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.models import Encoder, Head
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Expert(ModelStage):
    """The backbone, fine-tuned on a task under its frozen head; see :func:`mergerisk.fine_tune`.

    Attributes:
        task: the task.
        head: its head.
        backbone: what is fine-tuned.
        fine_tuning: hyper-parameters of :class:`mergerisk.finetuning.FineTuning`.
        name: the task's.
        seed: of what is drawn.
        images: training images.
    """

    kind: ClassVar[str] = "expert"
    noun: ClassVar[str] = "fine-tune experts"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 2

    task: Input[Task]
    head: Input[Head]
    backbone: Backbone
    fine_tuning: Mapping[str, Any]
    name: str
    seed: int
    images: int = unkeyed()

    def cost(self) -> Mapping[str, int]:
        """Images that are trained on, times epochs."""
        return {"training": self.images * self.fine_tuning["epochs"]}

    def run(self, bench: Workbench) -> Result:
        """The fine-tuned encoder's parameters by name."""
        import math

        from mergerisk.finetuning import FineTuning, fine_tune

        base, head, task = self.start(bench), bench.head(self.head), self.learns_from(bench)
        recipe = FineTuning(**self.fine_tuning)
        expert = fine_tune(base, head, task, recipe=recipe, seed=self.seed)
        steps = math.ceil(len(task.training_split("fine-tuning")) / recipe.batch_size)
        return Result(to_arrays(expert.state()), {"steps_per_epoch": steps})

    def learns_from(self, bench: Workbench) -> Task:
        """The task, for its training images."""
        return bench.task(self.task)

    def start(self, bench: Workbench) -> Encoder:
        """What is fine-tuned: the pretrained encoder."""
        return bench.base(self.backbone)
