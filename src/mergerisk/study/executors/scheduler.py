"""Which stage may run next: shared by every executor, and safe to share between threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mergerisk.study.stage import Stage


class Scheduler:
    """Hands out stages whose inputs exist, in the plan's order.

    Args:
        stages: all stages of the plan, inputs before what needs them.
        done: keys whose artefacts exist.
    """

    def __init__(self, stages: Mapping[str, Stage], done: Iterable[str]) -> None:
        self._stages = stages
        self._done = set(done)
        self._waiting = {key: stage for key, stage in stages.items() if key not in self._done}
        self._elsewhere: dict[str, Stage] = {}
        self._running: set[str] = set()
        self._stopped = False
        self._changed = threading.Condition()

    def take(self) -> tuple[Stage, bool] | None:
        """The next stage, and whether to wait for another run that is making it; None when nothing is left.

        Blocks while stages that others depend on are running.
        """
        with self._changed:
            while not self._stopped:
                ready = self._first_ready(self._waiting)
                if ready is not None:
                    return self._start(ready, self._waiting), False
                # Only when there is nothing else to do is a stage that another run is making worth waiting for.
                taken = self._first_ready(self._elsewhere)
                if taken is not None:
                    return self._start(taken, self._elsewhere), True
                if not self._running:
                    return None
                self._changed.wait()
            return None

    def _first_ready(self, among: Mapping[str, Stage]) -> str | None:
        for key, stage in among.items():
            if all(needed in self._done for needed in stage.inputs.values()):
                return key
        return None

    def _start(self, key: str, among: dict[str, Stage]) -> Stage:
        self._running.add(key)
        return among.pop(key)

    def finish(self, stage: Stage) -> None:
        """The stage's artefact exists now."""
        with self._changed:
            self._running.discard(stage.key)
            self._done.add(stage.key)
            self._changed.notify_all()

    def defer(self, stage: Stage) -> None:
        """Another run is making the stage; come back to it when nothing else is left."""
        with self._changed:
            self._running.discard(stage.key)
            self._elsewhere[stage.key] = stage
            self._changed.notify_all()

    def remake(self, stage: Stage, damaged: str) -> None:
        """An input of the stage was found damaged: make it again, unless that is under way, then the stage."""
        with self._changed:
            self._running.discard(stage.key)
            self._done.discard(damaged)
            again = (
                {damaged: self._stages[damaged]} if damaged not in self._running | self._elsewhere.keys() else {}
            )
            self._waiting = again | {stage.key: stage} | self._waiting
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
