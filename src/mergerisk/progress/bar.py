"""What a person sees of one long piece of work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mergerisk.progress.notebook import NotebookLine
from mergerisk.report.formatting import duration

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import ProgressColumn

LINE_EVERY = 15.0
"""Seconds between lines where there is no terminal."""


class Bar:
    """A bar in a terminal; a line that changes in a notebook; a line now and then elsewhere.

    Args:
        what: the work, in a word.
        amount: how its amount is shown.
        console: where.
        shown: whether anybody is to see it.
    """

    def __init__(
        self, what: str, amount: ProgressColumn, console: Console | None = None, *, shown: bool = True
    ) -> None:
        console = console or Console(stderr=True)
        self._what = what
        self._shown = shown
        self._console = console
        self._live = console.is_terminal and not console.is_jupyter
        self._notebook = NotebookLine() if console.is_jupyter else None
        self._progress = Progress(
            TextColumn(what),
            BarColumn(bar_width=30),
            amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar = self._progress.add_task(what, start=False, total=None)
        self._begun: float | None = None
        self._said = 0.0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def listen(self, done: int, total: int) -> None:
        """Take note of work done."""
        if not self._shown:
            return
        now = time.monotonic()
        if self._begun is None:
            self._begun = self._said = now
            if self._live:
                self._progress.start()  # only now: downloads have bars of their own
                self._progress.start_task(self._bar)
        if self._live:
            self._progress.update(self._bar, completed=done, total=total)
        elif self._notebook is not None:
            self._notebook.show(f"{self._what}, {done / total:.0%}", done / total, at_once=done == total)
        elif now - self._said > LINE_EVERY:
            self._said = now
            left = (now - self._begun) / done * (total - done)
            self._console.print(
                f"[{duration(round(now - self._begun))}] {self._what}, {done / total:.0%}, "
                f"about {duration(round(left))} left",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
