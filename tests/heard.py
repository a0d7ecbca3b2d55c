"""What listeners hear of stages, in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.study.executors.events import StageEnded, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mergerisk.study import Stage
    from mergerisk.study.executors.events import Event, Listener


def of_stages(tell: Callable[[Stage, str], object]) -> Listener:
    """A listener that tells every stage and ``started``, or how an attempt at it ended."""

    def listen(event: Event) -> None:
        if isinstance(event, StageStarted):
            tell(event.stage, "started")
        elif isinstance(event, StageEnded):
            tell(event.stage, event.outcome.status)

    return listen
