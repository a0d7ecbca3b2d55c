"""The head that comes with a classifier."""

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
class ClassifierHead(HeadStage):
    """A classifier's own head, its rows in the order of the task's labels.

    Attributes:
        task: whose classes it must name.
        identity: what the classifier is told by.
        of: the backbone, where it tells what the classifier's head is called; else None.
        file: folder or hub id of the classifier.
        backbone: of the study.
    """

    kind: ClassVar[str] = "head"
    noun: ClassVar[str] = "train heads"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 1

    task: Input[Task]
    identity: Mapping[str, Json]
    of: str | None
    file: str = unkeyed()
    backbone: Backbone = unkeyed()

    def run(self, bench: Workbench) -> Result:
        """The classifier's own layer, its rows in the order of the task's classes."""
        from mergerisk.study.heads import fitting_head

        task = bench.task(self.task)
        return kept_head(fitting_head(self.file, task.name, task.class_names, self.backbone.name))
