"""What a person sees while a study runs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mergerisk.cli.bar import LINE_EVERY

if TYPE_CHECKING:
    from types import TracebackType

    from mergerisk.store import Store
    from mergerisk.study.planning import Plan
    from mergerisk.study.stage import Stage

_NOUNS = {
    "task": "load tasks",
    "head": "train heads",
    "expert": "fine-tune experts",
    "merge": "merge",
    "correct": "correct merges",
    "clean": "clean accuracy",
    "craft": "craft",
    "evaluate": "evaluate",
}


class StudyProgress:
    """A bar per kind of stage in a terminal; a line now and then elsewhere.

    The time left comes from the work (images through models) done so far, not from the number of stages.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[count]:>9}"),
            TextColumn("{task.fields[rate]:>10}"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=self._console,
        )
        # What is left of a line beside the fixed columns; none in a narrow terminal.
        self._room = max(0, self._console.width - 68)
        self._bars: dict[str, TaskID] = {}
        self._total: TaskID | None = None
        self._stages: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._work_done = 0.0
        self._work_total = 0.0
        self._begun = time.monotonic()
        self._said = 0.0

    def __enter__(self) -> StudyProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def prepare(self, plan: Plan, store: Store) -> None:
        """Say what is to be done."""
        missing = plan.missing(store)
        self._stages.update(stage.kind for stage in missing)
        self._work_total = sum(_weight(stage) for stage in missing)
        cached = len(plan.stages) - len(missing)
        click.echo(
            f"{plan.study.name}: {plan.study.settings} settings, {len(plan.stages)} stages, {cached} of them "
            f"finished already; artefacts in {store.root}",
            err=True,
        )
        if not self._live or not missing:
            return
        for kind in self._stages:
            self._bar(kind)
        self._total = self._progress.add_task("all", total=self._work_total, count="", rate="", now="")
        self._progress.start()

    def listen(self, stage: Stage, event: str, seconds: float) -> None:  # noqa: ARG002
        """Take note of a stage's start or end."""
        if event == "started":
            self._started.setdefault(stage.kind, time.monotonic())
        elif event == "done":
            self._done[stage.kind] += 1
            self._work_done += _weight(stage)
        elif event == "damaged":
            self._stages[stage.kind] += 1
            self._console.print(
                f"what {stage.kind} {stage.label} left was damaged: moved aside in the store, and made again",
                highlight=False,
            )
        if self._live:
            self._draw(stage)
        elif time.monotonic() - self._said > LINE_EVERY or self._finished():
            self._say(stage)

    def _bar(self, kind: str) -> TaskID:
        """The bar of a kind; made when first asked for, since a damaged artefact adds stages no plan foresaw."""
        if kind not in self._bars:
            count = self._stages[kind]
            self._bars[kind] = self._progress.add_task(
                _NOUNS[kind], total=count, count=f"0/{count}", rate="", now=""
            )
        return self._bars[kind]

    def _finished(self) -> bool:
        return sum(self._done.values()) == sum(self._stages.values())

    def _draw(self, stage: Stage) -> None:
        done, count = self._done[stage.kind], self._stages[stage.kind]
        elapsed = time.monotonic() - self._started.get(stage.kind, time.monotonic())
        rate = f"{done / elapsed:.1f}/s" if done and elapsed > 0 else ""
        self._progress.update(self._bar(stage.kind), completed=done, count=f"{done}/{count}", rate=rate, now="")
        if self._total is not None:
            self._progress.update(
                self._total, completed=self._work_done, count=f"{self._share():.0%}", now=stage.label[: self._room]
            )

    def _say(self, stage: Stage) -> None:
        self._said = time.monotonic()
        elapsed = self._said - self._begun
        left = elapsed / self._work_done * (self._work_total - self._work_done) if self._work_done else None
        counts = f"{sum(self._done.values())}/{sum(self._stages.values())} stages"
        rate = f"{sum(self._done.values()) / elapsed:.1f}/s"
        remaining = f"about {left:.0f} s left" if left is not None else "time left unknown yet"
        click.echo(
            f"[{elapsed:4.0f} s] {counts}, {rate}, {self._share():.0%} of the work, {remaining}; now: "
            f"{_NOUNS[stage.kind]} {stage.label}",
            file=sys.stderr,
        )

    def _share(self) -> float:
        return self._work_done / self._work_total if self._work_total else 1.0


def _weight(stage: Stage) -> float:
    """Work of a stage; none is free."""
    return stage.work + 50.0
