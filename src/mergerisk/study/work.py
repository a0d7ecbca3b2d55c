"""How many images a stage passes through models, by the sizes of the tasks that it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.hub_downloads import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.outline import Outline
    from mergerisk.tasks.source import TaskSource


@dataclass(frozen=True)
class Sizes:
    """Images of a task's splits."""

    train: int
    calibration: int
    test: int


ASSUMED = Sizes(1000, 256, 400)
"""Of a data set of the hub that was not downloaded yet: the starter suite's order."""


def sizes_of(source: TaskSource, outlines: Mapping[TaskSource, Outline]) -> Sizes:
    """A task's sizes: from its outline if that is known, else as far as they show without a download.

    Raises:
        UserError: the task's files are at fault.
    """
    outline = outlines.get(source)
    if outline is None:
        try:
            outline = source.offline().check()
        except UnavailableError:
            return ASSUMED
    return Sizes(outline.train, outline.calibration, outline.test)
