"""How long a search may take, and how long measuring will."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from threading import Lock
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, shown_text
from mergerisk.progress.pace import weight
from mergerisk.recommending.searching import OutOfTime
from mergerisk.study.executors.events import StageEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mergerisk.study.executors.events import Event
    from mergerisk.study.stage import Stage
    from mergerisk.study.timing import Speeds

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)")
_MARGIN = 1.15
"""Of estimates: a little is always left out."""


def parse_time(text: str) -> float:
    """Seconds from ``90s``, ``30m`` or ``1.5h``, or several of them: ``1h 30m``.

    Raises:
        UserError: it is no such time, or none at all.
    """
    found = _TIME.findall(text.strip())
    seconds = sum(float(number) * _UNITS[unit] for number, unit in found)
    if not found or _TIME.sub("", text).strip() or not 0 < seconds < 1e8:
        raise UserError(f"--time must be a time such as 90s, 30m or 1.5h, got {shown_text(text, 40)!r}")
    return seconds


class Clock:
    """Knows what is left of the time, and what stages take; safe to share between threads.

    Args:
        limit: seconds; None for any number.
        spent: of them before.
        workers: processes that compute.
        now: seconds that only grow.
    """

    def __init__(
        self, limit: float | None, spent: float, workers: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        """Seconds that there are; None for any number."""
        self._spent = spent
        self._workers = workers
        self._now = now
        self._begun = now()
        self._lock = Lock()
        self._weights: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.reserve = 0.0
        """Seconds that are kept for measuring."""
        self.speeds: Speeds | None = None
        """What one worker does in a second, for as long as no stage was timed."""

    @property
    def here(self) -> float:
        """Seconds since this part of the search began."""
        return self._now() - self._begun

    @property
    def elapsed(self) -> float:
        """Seconds of the search, its earlier parts included."""
        return self._spent + self.here

    @property
    def left(self) -> float | None:
        """Seconds until the search has to end; None without a limit."""
        return None if self.limit is None else self.limit - self.reserve - self.elapsed

    def __call__(self, event: Event) -> None:
        """Take note of what happened.

        Raises:
            OutOfTime: there is no time left.
        """
        if isinstance(event, StageEnded) and event.outcome.status == "done" and event.outcome.seconds:
            stage = event.stage
            with self._lock:
                self._weights[stage.kind] += weight(stage)
                self._seconds[stage.kind] += event.outcome.seconds
        if self.left is not None and self.left <= 0:
            raise OutOfTime

    def estimate(self, stages: Iterable[Stage]) -> float:
        """Seconds that stages will take, by those that were timed; of kinds that were not, by all the others."""
        with self._lock:
            total = sum(self._weights.values())
            each = {kind: self._seconds[kind] / done for kind, done in self._weights.items() if done}
        if total:
            usual = sum(self._seconds.values()) / total
            work = sum(weight(stage) * each.get(stage.kind, usual) for stage in stages)
        else:
            work = 0.0 if self.speeds is None else self.speeds.seconds(stages)
        return _MARGIN * work / self._workers
