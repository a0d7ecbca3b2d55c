"""What a person sees while a study runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from mergerisk.progress.notebook import NotebookLine
from mergerisk.progress.pace import Pace
from mergerisk.report.formatting import duration, plural
from mergerisk.study.executors.events import RunStarted, StageEnded, StageStarted, Warned

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Task, TaskID

    from mergerisk.store import Store
    from mergerisk.study.executors.events import Event
    from mergerisk.study.planning import Plan
    from mergerisk.study.stage import Stage

CHECKING = "checking the study and what it names …"
"""Said before anything is loaded."""

FIRST_LINE, LINE_EVERY = 1.0, 15.0
"""Seconds to the first line, and between lines, where there is no terminal."""


def to_do(plan: Plan, missing: int, store: Store) -> str:
    """What a run is to do, and how much of it is done, in a line."""
    return (
        f"{plan.study.name}: {plural(plan.study.settings, 'setting')}, {plural(len(plan.stages), 'stage')}, "
        f"{len(plan.stages) - missing} of them finished already; artefacts in {store.root}"
    )


class StudyProgress:
    """A bar per kind of stage in a terminal; a line that changes in a notebook; a line now and then elsewhere, as
    in a pipe.

    The time left is named once enough of what is left has been timed; see :class:`~mergerisk.progress.pace.Pace`.

    Args:
        console: where; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal and not self._console.is_jupyter
        self._notebook = NotebookLine() if self._console.is_jupyter else None
        self._pace = Pace()
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[count]:>9}"),
            _Times(self._pace),
            TextColumn("[dim]{task.fields[now]}"),
            console=self._console,
        )
        # What is left of a line beside the fixed columns; none in a narrow terminal.
        self._room = max(0, self._console.width - 76)
        self._bars: dict[str, TaskID] = {}
        self._total: TaskID | None = None
        self._now: Stage | None = None
        self._ended = threading.Event()
        self._lines: threading.Thread | None = None

    def __enter__(self) -> StudyProgress:
        self._print(CHECKING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._lines is not None:
            self._lines.join()
        if self._live:
            self._progress.stop()
        if self._notebook is not None and kind is None:
            took = duration(round(self._pace.elapsed))
            self._notebook.show(f"{plural(self._pace.done.total(), 'stage')} done in {took}", at_once=True)

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""
        match event:
            case RunStarted():
                self._begin(event.plan, event.store)
            case StageStarted():
                self._now = event.stage
                self._pace.start(event.stage)
                self._show(event.stage)
            case StageEnded():
                if event.outcome.status == "done":
                    self._pace.finish(event.stage, event.outcome.seconds)
                elif event.outcome.status == "damaged":
                    self._pace.add(event.stage)
                else:
                    self._pace.give_up(event.stage)
                self._show(event.stage)
            case Warned():
                self._print(event.text)

    def _begin(self, plan: Plan, store: Store) -> None:
        """Say what is to be done."""
        missing = plan.missing(store)
        self._pace.plan(plan.stages.values(), missing)
        self._print(to_do(plan, len(missing), store))
        if not missing:
            return
        if self._notebook is not None:
            return
        if not self._live:
            self._lines = threading.Thread(target=self._speak, daemon=True)
            self._lines.start()
            return
        for stage in {stage.kind: stage for stage in plan.stages.values()}.values():
            self._draw(stage)
        self._total = self._progress.add_task("all", total=1.0, count="", now="")
        self._draw_total()
        self._progress.start()

    def _show(self, stage: Stage) -> None:
        """Show how far it is."""
        if self._live:
            self._draw(stage)
            self._draw_total()
        elif self._notebook is not None:
            self._notebook.show(self.line(), self._pace.share)

    def _bar(self, stage: Stage) -> TaskID:
        """The bar of a kind; made when first asked for, since a damaged artefact adds stages no plan foresaw."""
        if stage.kind not in self._bars:
            self._bars[stage.kind] = self._progress.add_task(stage.noun, count="", now="")
        return self._bars[stage.kind]

    def _draw(self, stage: Stage) -> None:
        done, total = self._pace.done[stage.kind], self._pace.stages[stage.kind]
        self._progress.update(self._bar(stage), completed=done, total=total, count=f"{done}/{total}")

    def _draw_total(self) -> None:
        if self._total is not None:
            share, now = self._pace.share, self._now.label[: self._room] if self._now else ""
            self._progress.update(self._total, completed=share, count=f"{share:.0%}", now=now)

    def _speak(self) -> None:
        wait = FIRST_LINE
        while not self._ended.wait(wait) and not self._pace.finished:
            self._print(self.line())
            wait = LINE_EVERY

    def line(self) -> str:
        """Where it stands: ``[1 min 5 s] 30/49 stages, 61% of the work, about 40 s left; now: craft …``."""
        pace = self._pace
        now = f"; now: {self._now.noun} {self._now.label}" if self._now else ""
        return (
            f"[{duration(round(pace.elapsed))}] {pace.done.total()}/{pace.stages.total()} stages, "
            f"{pace.share:.0%} of the work, {_left(pace)}{now}"
        )

    def _print(self, text: str) -> None:
        if self._notebook is not None:
            self._notebook.show(text, at_once=True)
            return
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Times(ProgressColumn):
    """Of the line for everything: elapsed, and what is left as soon as that means something."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        if task.description != "all":
            return Text("")
        return Text(f"{duration(round(self._pace.elapsed))}, {_left(self._pace)}")


def _left(pace: Pace) -> str:
    remaining = pace.remaining
    return "time left not known yet" if remaining is None else f"about {duration(round(remaining))} left"
