"""A head that lies in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import Input, unkeyed
from mergerisk.study.kinds.arrays import kept_head
from mergerisk.study.kinds.results import HeadStage

if TYPE_CHECKING:
    from mergerisk.study.stage import Result
    from mergerisk.study.workbench import Workbench
    from mergerisk.tasks import Task


@dataclass(frozen=True, kw_only=True)
class FileHead(HeadStage):
    """A linear layer from a safetensors file.

    Attributes:
        task: whose labels its rows stand for.
        digest: SHA-256 of the file.
        file: where it lies.
    """

    kind: ClassVar[str] = "head"
    noun: ClassVar[str] = "train heads"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 1

    task: Input[Task]
    digest: str
    file: str = unkeyed()

    def run(self, bench: Workbench) -> Result:
        """The file's layer, its rows in the order of the task's classes."""
        from mergerisk.study.heads import head_of_file

        task = bench.task(self.task)
        return kept_head(head_of_file(self.file, task.name, task.class_names))
