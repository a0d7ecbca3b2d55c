"""A head from class names, through the backbone's text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import kept_head
from mergerisk.study.kinds.results import HeadStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store.keys import Json
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.stage import Result
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class ZeroShotHead(HeadStage):
    """A head whose rows are the mean text features of a class's prompts; see :func:`mergerisk.models.zero_shot`.

    Attributes:
        task: whose classes it names.
        templates: prompts with ``{}`` for the class.
        class_names: what prompts call the classes; None for the task's own names.
        text: what the text tower is told by.
        backbone: whose text tower it is.
    """

    kind: ClassVar[str] = "head"
    noun: ClassVar[str] = "train heads"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 1

    task: Input[Task]
    templates: tuple[str, ...]
    class_names: tuple[str, ...] | None
    text: Mapping[str, Json]
    backbone: Backbone = unkeyed()

    def run(self, bench: Workbench) -> Result:
        """The head of the prompts' text embeddings, a row per class."""
        from mergerisk.models import zero_shot
        from mergerisk.study.heads import prompt_names

        task = bench.task(self.task)
        names = prompt_names(task.name, task.class_names, self.class_names)
        return kept_head(zero_shot(self.backbone.name, names, self.templates, device=bench.compute.device))
