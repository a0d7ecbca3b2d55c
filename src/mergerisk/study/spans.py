"""How long a plan takes by the number of workers: its stages handed out as a run would, none of them computed."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from mergerisk.study.executors.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mergerisk.study.stage import Stage
    from mergerisk.study.timing import Speeds

_GAIN = 0.1
"""Share of the time that twice as many workers have to save to be worth naming."""
_MOST = 2**14


def span(stages: Mapping[str, Stage], missing: Collection[str], speeds: Speeds, workers: int) -> float:
    """Seconds from the first of the missing stages to the end of the last.

    Args:
        stages: a plan's, by key.
        missing: keys of those that are to be made.
        speeds: of one worker; what is not measured takes no time.
        workers: each makes one stage at a time.
    """
    scheduler = Scheduler(stages, stages.keys() - set(missing))
    running: list[tuple[float, str]] = []
    now = 0.0
    while True:
        while len(running) < workers and (taken := scheduler.take()) is not None:
            heapq.heappush(running, (now + speeds.seconds(taken[:1]), taken[0].key))
        if not running:
            return now
        now, key = heapq.heappop(running)
        scheduler.finish(stages[key])


def spans(
    stages: Mapping[str, Stage], missing: Collection[str], speeds: Speeds, named: Collection[int] = ()
) -> dict[int, float]:
    """Seconds by the number of workers: of 1, 2, 4 … until twice as many save less than a tenth, and of those
    named; in that order."""
    found = {1: span(stages, missing, speeds, 1)}
    workers = 1
    while workers < _MOST:
        further = span(stages, missing, speeds, 2 * workers)
        if further > (1 - _GAIN) * found[workers]:
            break
        workers *= 2
        found[workers] = further
    found |= {count: span(stages, missing, speeds, count) for count in named if count not in found}
    return dict(sorted(found.items()))
