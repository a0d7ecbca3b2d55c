"""What happens in a run, as whoever listens is told it: what a study's stages tell, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import Event, Listener, RunStarted, StageEnded, StageStarted, Warned

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report.summary import Summary
    from mergerisk.study.schema import Study

__all__ = [
    "Event",
    "Listener",
    "Outcome",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "SearchEnded",
    "SearchStarted",
    "StageEnded",
    "StageStarted",
    "Warned",
]


@dataclass(frozen=True)
class RunFinished(Event):
    """A run is done, and its results and report are written.

    Attributes:
        folder: of the run.
        summary: what the report shows.
    """

    folder: Path
    summary: Summary


@dataclass(frozen=True)
class RunFailed(Event):
    """A run that had started ends without results; what is finished is kept.

    Attributes:
        error: what ended it: a ``KeyboardInterrupt``, say.
    """

    error: BaseException


@dataclass(frozen=True)
class SearchStarted(Event):
    """A search for recipes begins, in rounds of stages.

    Attributes:
        study: what is searched for, resolved.
        folder: of the search.
    """

    study: Study
    folder: Path


@dataclass(frozen=True)
class SearchEnded(Event):
    """Recipes were tried, and the best are about to be measured.

    Attributes:
        tried: how many.
        best: how many of them.
        folder: of the run in which these are measured.
    """

    tried: int
    best: int
    folder: Path
