"""What a person sees while a search runs."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mergerisk.progress.study_progress import LINE_EVERY
from mergerisk.recommending.scoring import front
from mergerisk.report.formatting import duration, plural
from mergerisk.study.executors.events import StageEnded, StageStarted, Warned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from mergerisk.recommending.clock import Clock
    from mergerisk.recommending.scoring import Tried
    from mergerisk.study.executors.events import Event


class SearchProgress:
    """A bar in a terminal; elsewhere a line now and then.

    Args:
        limit: seconds that there are; None for any number.
        most: trials, at most; likewise.
        console: where; standard error by default.
    """

    def __init__(self, limit: float | None, most: int | None, console: Console | None = None) -> None:
        self._limit = limit
        self._most = most
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal and not self._console.is_jupyter
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("[dim]{task.fields[now]}"),
            console=self._console,
            transient=True,
        )
        self._bar = self._progress.add_task("searching", total=1.0, now="")
        self._lock = Lock()
        self._begun: float | None = None
        self._said = 0.0
        self._spent = 0.0
        self._tried, self._best, self._now = 0, 0, ""

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        if isinstance(event, Warned):
            self.say(event.text)
        elif isinstance(event, StageStarted | StageEnded):
            with self._lock:
                if isinstance(event, StageStarted):
                    self._now = f"{event.stage.noun} {event.stage.label}"
                self._show()

    def settle(self, found: Sequence[Tried], clock: Clock) -> None:
        """Take note of a round's end."""
        with self._lock:
            self._tried, self._best, self._spent = len(found), len(front(found)), clock.elapsed - clock.here
            if self._begun is None:
                self._begun = self._said = time.monotonic()
                if self._live:
                    self._progress.start()
            if found:
                self._said = 0.0  # a round's end is worth a line
            self._show()

    def end(self) -> None:
        """The search is over."""
        if self._live:
            self._progress.stop()

    def line(self) -> str:
        """Where it stands: ``[1 min 5 s] 24 recipes tried, 5 best trades; now: craft …``."""
        elapsed = duration(round(self._elapsed))
        of = "" if self._limit is None else f" of {duration(self._limit)}"
        most = "" if self._most is None else f" of at most {self._most}"
        tried = f"{plural(self._tried, 'recipe')} tried{most}, {plural(self._best, 'best trade')}"
        return f"[{elapsed}{of}] {tried}{f'; now: {self._now}' if self._now else ''}"

    @property
    def _elapsed(self) -> float:
        return self._spent + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def _show(self) -> None:
        now = time.monotonic()
        if self._live:
            shares = [self._elapsed / self._limit] if self._limit else []
            shares += [self._tried / self._most] if self._most else []
            room = max(20, self._console.width - 34)
            self._progress.update(self._bar, completed=min(1.0, max(shares, default=0.0)), now=self.line()[:room])
        elif now - self._said > LINE_EVERY:
            self._said = now
            self.say(self.line())
