"""What happens in a run, as whoever listens is told it: what a study's stages tell, how it ends, and what a
search for recipes tells, of which a run is the last part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.study.executors.attempt import Outcome
from mergerisk.study.executors.events import Event, Listener, RunStarted, StageEnded, StageStarted, Warned

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from mergerisk.report.summary import Summary
    from mergerisk.study.schema import Study

__all__ = [
    "Candidate",
    "CheckFinished",
    "Event",
    "Listener",
    "Outcome",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "SearchEnded",
    "SearchFinished",
    "SearchRound",
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
class CheckFinished(Event):
    """The models of a study were checked before it merges: what had started as a run ends without results.

    Attributes:
        warnings: what looks wrong, in sentences.
    """

    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SearchStarted(Event):
    """A search for recipes begins, in rounds of stages; or goes on.

    Attributes:
        study: what is searched for, resolved.
        folder: of the search.
        seed: of the search.
        seconds: that it may take; None without a limit.
        trials: recipes that it may try; None without a limit.
    """

    study: Study
    folder: Path
    seed: int
    seconds: float | None
    trials: int | None


@dataclass(frozen=True)
class Candidate:
    """A recipe that was tried, and where it stands on the images that recipes are chosen by.

    Attributes:
        number: of the trial, from 0.
        recipe: in words.
        clean_accuracy: mean over tasks, in [0, 1].
        epsilon50: under the worst attacker who holds no merge, in pixel units, continued beyond the measured
            budgets.
        best: whether no other beats it on both axes.
    """

    number: int
    recipe: str
    clean_accuracy: float
    epsilon50: float
    best: bool


@dataclass(frozen=True)
class SearchRound(Event):
    """A round of a search is done, or what an earlier search in the folder tried is known.

    Attributes:
        candidates: everything that was tried so far, in order.
    """

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class SearchEnded(Event):
    """Recipes were tried, and the best are about to be measured, in a run of which all is told.

    Attributes:
        tried: how many.
        best: how many of them.
        folder: of the run in which these are measured.
    """

    tried: int
    best: int
    folder: Path


@dataclass(frozen=True)
class SearchFinished(Event):
    """The best recipes were measured, and what was found is written.

    Attributes:
        folder: of the search.
        recommended: the name of the recipe, as results call it.
        headline: what it is, and which of the study's merges it is better than, in sentences.
        measured: a row per recipe and merge that was measured, as in ``recommendation.csv``.
        files: that hold all of it.
    """

    folder: Path
    recommended: str
    headline: str
    measured: pd.DataFrame
    files: tuple[Path, ...]
