"""The stages of a plan as they are found to be needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mergerisk.study.kinds.held_out import HeldOut
from mergerisk.study.kinds.load_task import LoadTask
from mergerisk.study.work import Sizes, sizes_of
from mergerisk.tasks.catalogue import plugins_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.study.keyed import Input
    from mergerisk.study.stage import Stage, StageOf
    from mergerisk.tasks import Task
    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource

T = TypeVar("T")


class Stages:
    """Collects stages; equal work is one stage.

    Args:
        outlines: of tasks, where they are known, to count images by.
    """

    def __init__(self, outlines: Mapping[TaskSource, Outline]) -> None:
        self._outlines = outlines
        self._sizes: dict[Input[Task], Sizes] = {}
        self._found: dict[str, Stage] = {}

    def add(self, stage: StageOf[T]) -> Input[T]:
        """Have a stage run; returns its result, for stages that need it."""
        self._found.setdefault(stage.key, stage)
        return stage.result

    def task(self, source: TaskSource) -> Input[Task]:
        """Have a task loaded.

        Raises:
            UserError: its files are at fault.
        """
        made = self.add(
            LoadTask(label=source.name, plugins=plugins_of(source), identity=source.identity(), source=source)
        )
        if made not in self._sizes:
            self._sizes[made] = sizes_of(source, self._outlines)
        return made

    def held_out(self, task: Input[Task]) -> Input[Task]:
        """Have a task's calibration images made a task of their own, whose test images they are."""
        made = self.add(HeldOut(label=f"of {self.of(task).label}", task=task))
        self._sizes[made] = Sizes(0, 0, self._sizes[task].calibration)
        return made

    def of(self, made: Input[T]) -> Stage:
        """The stage behind a result."""
        return self._found[made.key]

    def sizes(self, task: Input[Task]) -> Sizes:
        """Images of a task's splits."""
        return self._sizes[task]

    def pools(self, tasks: Iterable[Input[Task]], split: str) -> list[int]:
        """Images that a method may read, per task: of the ``test`` split, or held out."""
        sizes = [self._sizes[task] for task in tasks]
        return [size.test if split == "test" else size.calibration for size in sizes]

    def ordered(self) -> dict[str, Stage]:
        """By key, inputs before what needs them, and what the most stages wait for first."""
        return dict(sorted(self._found.items(), key=lambda item: item[1].rank))
