"""A fine-tune on data of which some classes have fewer images than the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mergerisk.study.kinds.expert import Expert

if TYPE_CHECKING:
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class UnbalancedExpert(Expert):
    """An expert, fine-tuned on training images of which a drawn half of the classes makes up a share only; see
    :func:`mergerisk.tasks.task.select_unbalanced`.

    Attributes:
        minority: that share.
    """

    minority: float

    def learns_from(self, bench: Workbench) -> Task:
        """The task, with what is left of its training images."""
        from mergerisk.randomness import generator
        from mergerisk.tasks.task import select_unbalanced

        task = bench.task(self.task)
        draws = generator(self.seed, "unbalanced", self.name)
        left = select_unbalanced(task.train.labels, len(task.class_names), self.minority, draws)
        return replace(task, train=task.train.subset(left))
