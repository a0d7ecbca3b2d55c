"""What a person sees while checkpoints are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType


class MergeProgress:
    """A bar of bytes read and written in a terminal; nothing elsewhere, since a merge takes seconds."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("merging"),
            BarColumn(bar_width=30),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("merging", start=False, total=None)

    def __enter__(self) -> MergeProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def listen(self, done: int, total: int) -> None:
        """Take note of bytes done."""
        if not self._progress.live.is_started:
            self._progress.start()  # only now: downloads have bars of their own
            self._progress.start_task(self._bar)
        self._progress.update(self._bar, completed=done, total=total)
