"""Which stage may run next: shared by every executor."""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mergerisk.study.stage import Stage


class Scheduler:
    """Hands out stages whose inputs exist, in the plan's order, without ever waiting.

    Args:
        stages: all stages of the plan, inputs before what needs them.
        done: keys whose artefacts exist.
        line: stage → the line that it stands in; one may be served while another has to wait.
        model: stage → the key of a large model that it is given; empty without one.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        done: Iterable[str],
        line: Callable[[Stage], str] = lambda _: "",
        model: Callable[[Stage], str] = lambda _: "",
    ) -> None:
        self._stages = stages
        self._line = line
        self._model = model
        self._done = set(done)
        self._running: set[str] = set()
        self._elsewhere: dict[str, None] = {}
        """What other runs are making, in the order in which it was found."""
        self._front = 0
        self._places = {key: place for place, key in enumerate(stages)}
        """Where a stage stands in its line; what has to be made again stands before all others."""
        self._ready: defaultdict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        """Heaps, by line and model; of a stage that was moved forward an older entry may be left, which counts no
        more."""
        self._lacking: dict[str, set[str]] = {}
        """Waiting stage → inputs that do not exist yet."""
        self._needed_by: defaultdict[str, set[str]] = defaultdict(set)
        for key in stages:
            if key not in self._done:
                self._wait(key)

    def _wait(self, key: str) -> None:
        """Have a stage stand in line, or wait for its inputs."""
        lacking = set(self._stages[key].inputs.values()) - self._done
        self._lacking[key] = lacking
        for needed in lacking:
            self._needed_by[needed].add(key)
        if not lacking:
            self._line_up(key)

    def _line_up(self, key: str) -> None:
        stage = self._stages[key]
        heapq.heappush(self._ready[self._line(stage), self._model(stage)], (self._places[key], key))

    def take(self, lines: Collection[str] = ("",), near: Collection[str] = ()) -> tuple[Stage, bool] | None:
        """The next stage of these lines, and whether to wait for another run that is making it; None where there
        is none now. Of those of the first rank, the ones that are given a model of ``near`` come first; what has
        to be made again comes before all others."""
        found = [(heap[0], where) for where in self._ready if where[0] in lines and (heap := self._current(where))]
        if found:
            first = min(found)
            (place, _), _ = first
            alike = [one for one in found if one[1][1] in near and self._rank(one) == self._rank(first)]
            (_, key), where = min(alike, default=first) if place >= 0 else first
            heapq.heappop(self._ready[where])
            del self._lacking[key]
            return self._start(key), False
        # Only when there is nothing else to do is a stage that another run is making worth waiting for.
        if not any(map(self._current, [*self._ready])):
            for key in self._elsewhere:
                stage = self._stages[key]
                if self._line(stage) in lines and self._done.issuperset(stage.inputs.values()):
                    del self._elsewhere[key]
                    return self._start(key), True
        return None

    def _rank(self, found: tuple[tuple[int, str], tuple[str, str]]) -> int:
        (_, key), _ = found
        return self._stages[key].rank

    def _current(self, where: tuple[str, str]) -> list[tuple[int, str]]:
        """Those of a line and a model, without those at their head that do not wait there any more."""
        heap = self._ready[where]
        while heap and (self._lacking.get(heap[0][1]) != set() or self._places[heap[0][1]] != heap[0][0]):
            heapq.heappop(heap)
        return heap

    def _start(self, key: str) -> Stage:
        self._running.add(key)
        return self._stages[key]

    def finish(self, stage: Stage) -> None:
        """The stage's artefact exists now."""
        self._running.discard(stage.key)
        self._done.add(stage.key)
        for key in self._needed_by.pop(stage.key, ()):
            lacking = self._lacking.get(key)
            if lacking is not None and stage.key in lacking:
                lacking.remove(stage.key)
                if not lacking:
                    self._line_up(key)

    def defer(self, stage: Stage) -> None:
        """Another run is making the stage; come back to it when nothing else is left."""
        self._running.discard(stage.key)
        self._elsewhere[stage.key] = None

    def repeat(self, stage: Stage) -> None:
        """The attempt came to nothing, through no fault of the stage: it is the next one."""
        self._running.discard(stage.key)
        self._first(stage.key)

    def remake(self, stage: Stage, damaged: str) -> None:
        """An input of the stage was found damaged: make it again, unless that is under way, then the stage."""
        self._running.discard(stage.key)
        self._done.discard(damaged)
        for key, lacking in self._lacking.items():
            if damaged in self._stages[key].inputs.values():
                lacking.add(damaged)
                self._needed_by[damaged].add(key)
        self._first(stage.key)
        if damaged not in self._running | self._elsewhere.keys():
            self._first(damaged)

    def _first(self, key: str) -> None:
        """Have a stage wait before all others."""
        self._front -= 1
        self._places[key] = self._front
        self._wait(key)
