"""How much of a plan is done, and how long what is left will take, from the stages timed so far."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mergerisk.study.stage import Stage

_TRUSTED = 0.5
"""Share of the remaining work whose kinds have to have been timed before a time is named."""
_SETTLED = 5.0
"""Seconds of stages finished before a time is named: the first ones also import and read."""
_KNOWN = 0.02
"""Share of a kind's work that has to be done before what it takes counts as measured, for the same reason."""


class Pace:
    """Counts stages as they start and end; safe to share between threads.

    A stage's work is guessed from the images that it passes through models; what a unit of it takes is measured
    kind by kind, since a stage that crafts and one that reads files have little in common.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._begun = clock()
        self._work: defaultdict[str, float] = defaultdict(float)
        self._left: defaultdict[str, float] = defaultdict(float)
        self._timed: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._missing: set[str] = set()
        self._running: dict[str, float] = {}
        self._workers = 1
        self._told = False
        self.stages: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def plan(self, stages: Iterable[Stage], missing: Iterable[Stage]) -> None:
        """Take note of what there is, and what of it is to be made; the clock starts."""
        with self._lock:
            self._begun = self._clock()
            for stage in stages:
                self.stages[stage.kind] += 1
                self.done[stage.kind] += 1
                self._work[stage.kind] += weight(stage)
            for stage in missing:
                self._miss(stage)

    def _miss(self, stage: Stage) -> None:
        if stage.key not in self._missing:
            self._missing.add(stage.key)
            self.done[stage.kind] -= 1
            self._left[stage.kind] += weight(stage)

    def start(self, stage: Stage) -> None:
        """A stage begins."""
        with self._lock:
            self._running[stage.key] = self._clock()
            self._workers = max(self._workers, len(self._running))

    def finish(self, stage: Stage, seconds: float) -> None:
        """A stage's artefact exists now; it took ``seconds``, 0 if somebody else made it."""
        with self._lock:
            self._running.pop(stage.key, None)
            if stage.key in self._missing:
                self._missing.remove(stage.key)
                self.done[stage.kind] += 1
                self._left[stage.kind] -= weight(stage)
            if seconds:
                self._timed[stage.kind] += weight(stage)
                self._seconds[stage.kind] += seconds

    def give_up(self, stage: Stage) -> None:
        """An attempt ended without an artefact."""
        with self._lock:
            self._running.pop(stage.key, None)

    def add(self, stage: Stage) -> None:
        """A stage that was done has to be done again."""
        with self._lock:
            self._miss(stage)

    @property
    def elapsed(self) -> float:
        """Seconds since the plan was known."""
        return self._clock() - self._begun

    @property
    def share(self) -> float:
        """How much of all work is done, what earlier runs did included, in [0, 1]."""
        with self._lock:
            total = sum(self._work.values())
            return max(0.0, 1 - sum(self._left.values()) / total) if total else 1.0

    @property
    def finished(self) -> bool:
        """Whether nothing is left."""
        return not self._missing

    @property
    def remaining(self) -> float | None:
        """Seconds left; None as long as too little of what is left has been timed to say so. Once it was known it
        stays so: when a kind that was timed comes to its end, a kind that was not may be most of what is left, and
        is reckoned at the pace of the others until it is timed itself."""
        with self._lock:
            left = {kind: work for kind, work in self._left.items() if work > 0}
            total, busy = sum(left.values()), sum(self._seconds.values())
            if not left:
                return 0.0
            known = {
                kind for kind, work in left.items() if self._timed[kind] >= _KNOWN * (self._timed[kind] + work)
            }
            trusted = sum(left[kind] for kind in known) >= _TRUSTED * total and busy >= _SETTLED
            self._told = self._told or trusted
            if not self._told:
                return None
            usual = busy / sum(self._timed.values())
            seconds = sum(
                work * (self._seconds[kind] / self._timed[kind] if kind in known else usual)
                for kind, work in left.items()
            )
            now = self._clock()
            under_way = sum(now - since for since in self._running.values())
            return max(seconds - under_way, 0.0) / self._workers


def weight(stage: Stage) -> float:
    """Work of a stage, in forward passes of one image; none is free."""
    return stage.work + 50.0
