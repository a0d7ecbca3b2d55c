"""What happens in a run, as whoever listens is told it: what shows progress, the log file, trackers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mergerisk.store import Store
    from mergerisk.study.executors.attempt import Outcome
    from mergerisk.study.planning import Plan
    from mergerisk.study.schema import Study
    from mergerisk.study.stage import Stage


@dataclass(frozen=True)
class Event:
    """Something that happened; of which kind, says its class."""


Listener: TypeAlias = "Callable[[Event], None]"
"""Whatever is called with every event, in this process, one after another."""


@dataclass(frozen=True)
class RunStarted(Event):
    """Everything is checked, and the first stage is about to start.

    Attributes:
        study: what is run, resolved.
        folder: of the run.
        plan: the stages.
        store: where their artefacts are.
        device: that computes, as ``cpu`` or ``cuda:0, cuda:1``.
        workers: stages at once.
    """

    study: Study
    folder: Path
    plan: Plan
    store: Store
    device: str
    workers: int


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage was handed to whoever makes it."""

    stage: Stage


@dataclass(frozen=True)
class StageEnded(Event):
    """An attempt at a stage ended, or an artefact was found damaged.

    Attributes:
        stage: which; where something is damaged, the stage that left it.
        outcome: how: its status, seconds, device and memory.
    """

    stage: Stage
    outcome: Outcome


@dataclass(frozen=True)
class Warned(Event):
    """Something that one should know, and that does not end the run.

    Attributes:
        text: a line.
    """

    text: str


_REMARKS = {
    "damaged": "damaged: what {} left; moved aside in the store, and made again",
    "full": "memory does not suffice for {} now; fewer are made at once",
    "away": "the store is not there; waiting for it to come back",
    "lost": "lost: whoever was making {}; it is made anew",
}
"""What is said of attempts that ended so."""


def tell_end(listener: Listener, stage: Stage, outcome: Outcome) -> None:
    """Tell that an attempt ended, and what one should know of it."""
    listener(StageEnded(stage, outcome))
    if outcome.status in _REMARKS:
        listener(Warned(_REMARKS[outcome.status].format(f"{stage.kind} {stage.label}")))


def nobody(event: Event) -> None:
    """Listens to nothing."""
