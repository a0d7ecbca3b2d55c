"""``run.log`` in a run's folder: what happened and when, in plain text, a line each.

The same lines go to the logger ``mergerisk.run``, for whoever configures Python's ``logging``: the package itself
configures nothing.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mergerisk.disk import mebibytes
from mergerisk.errors import UserError, described
from mergerisk.listeners.events import (
    CheckFinished,
    RunFailed,
    RunFinished,
    SearchEnded,
    SearchFinished,
    SearchStarted,
)
from mergerisk.progress.study_progress import CHECKING, to_do
from mergerisk.provenance import git_revision, versions
from mergerisk.report.formatting import duration, plural
from mergerisk.study.executors.events import RunStarted, StageEnded, StageStarted, Warned
from mergerisk.transfer.redaction import secrets_of_environment, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from mergerisk.study.executors.attempt import Outcome
    from mergerisk.study.executors.events import Event
    from mergerisk.study.schema import Study
    from mergerisk.transfer.redaction import Secrets

FILE = "run.log"

_LOGGER = logging.getLogger("mergerisk.run")


class RunLog:
    """Writes what happens; appends where there is a log already. A run that is a part of a search has a log of its
    own, and how either ends is in both. A context manager, which closes the files."""

    name = FILE

    def __init__(self) -> None:
        self._files: list[_File] = []
        self._begun = time.monotonic()

    def __enter__(self) -> RunLog:
        self.say(CHECKING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._files:
            self._files.pop().close()

    def open(self, folder: Path, study: Study) -> None:
        """Have what is said from now on in a folder's log, but for what is confidential in a study."""
        begun = time.monotonic() if self._files else self._begun
        self._files.append(_File(folder / FILE, secrets_of_environment(_variables(study)), begun))
        self.say(", ".join(f"{name} {version}" for name, version in versions().items()))
        if (revision := git_revision()) is not None:
            self.say(f"mergerisk's revision {revision}")

    def say(self, text: str, level: int = logging.INFO, error: BaseException | None = None) -> None:
        """A line, with the trace of an error below it, in the log of the run that is under way."""
        record = _record(text, level, error)
        # To the file whatever level somebody chose for the logger, which is theirs and not to be changed.
        for file in self._files[-1:]:
            file.handle(record)
        if _LOGGER.isEnabledFor(level):
            _LOGGER.handle(record)

    def __call__(self, event: Event) -> None:
        """Write what happened.

        Raises:
            OSError: it cannot be written.
        """
        match event:
            case RunStarted():
                self.open(event.folder, event.study)
                for line in _beginning(event):
                    self.say(line)
            case SearchStarted():
                self.open(event.folder, event.study)
            case SearchEnded(tried, best, folder):
                self.say(f"{plural(tried, 'recipe')} tried, {best} of them are measured in {folder}")
            case StageStarted(stage):
                self.say(f"{stage.noun} {stage.label}: started")
            case StageEnded(stage, outcome):
                self.say(f"{stage.noun} {stage.label}: {_ending(outcome)}")
            case Warned(text):
                self.say(text, logging.WARNING)
            case RunFinished():
                self.say(f"finished, after {self._elapsed}; the report is {event.folder / 'report.html'}")
                if len(self._files) > 1:
                    self._files.pop().close()
            case CheckFinished(warnings):
                for warning in warnings:
                    self.say(warning, logging.WARNING)
                self.say(f"finished, after {self._elapsed}: models checked, nothing merged or attacked")
            case SearchFinished():
                self.say(f"finished, after {self._elapsed}: {event.headline}")
            case RunFailed(error):
                ours = isinstance(error, Exception) and not isinstance(error, UserError)
                what = described(error) if isinstance(error, Exception) else type(error).__name__
                trace = error if ours else None
                for file in self._files[:-1]:  # of the search that the run is a part of
                    file.handle(_record(f"ended, after {_since(file.begun)}: {what}", logging.ERROR, trace))
                self.say(f"ended, after {self._elapsed}: {what}", logging.ERROR, trace)

    @property
    def _elapsed(self) -> str:
        return _since(self._files[-1].begun if self._files else self._begun)


def _record(text: str, level: int, error: BaseException | None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, error.__traceback__)
    return _LOGGER.makeRecord(_LOGGER.name, level, __file__, 0, text, (), trace)


def _since(begun: float) -> str:
    return duration(round(time.monotonic() - begun))


def _beginning(event: RunStarted) -> Iterator[str]:
    yield to_do(event.plan, len(event.plan.missing(event.store)), event.store)
    yield f"device {event.device}, {plural(event.workers, 'worker')}"
    yield from (f"note: {note}" for note in event.plan.notes)


def _ending(outcome: Outcome) -> str:
    """How an attempt ended: ``done in 1.25 s on cpu, at most 310.2 MiB, by node7/4711``."""
    if outcome.status != "done":
        return {"busy": "another run is making it"}.get(outcome.status, outcome.status)
    if not outcome.where:
        return "another run has made it"
    most = "" if outcome.peak_bytes is None else f", at most {mebibytes(outcome.peak_bytes, 1)}"
    device = outcome.peak_device_bytes
    there = "" if device is None else f" and {mebibytes(device, 1)} on the device"
    return f"done in {outcome.seconds:.2f} s on {outcome.device}{most}{there}, by {outcome.where}"


def _variables(study: Study) -> Iterator[str]:
    """Environment variables that hold what a study's services are sent in confidence."""
    for target in study.targets:
        yield from (target.header_variables or {}).values()
        if target.token_variable is not None:
            yield target.token_variable


class _File(logging.FileHandler):
    """A file that is appended to, in UTC, and in which no secret stands; of what began at ``begun``, on the
    monotonic clock."""

    def __init__(self, path: Path, secrets: Secrets, begun: float) -> None:
        super().__init__(path, encoding="utf-8")
        self.begun = begun
        self._secrets = secrets
        formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        return "\n".join(without_logins(self._secrets.hidden(line)) for line in lines)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # logging's own names
        """Raise what went wrong, for whoever tells listeners to say it once; logging itself prints a trace each
        time."""
        raise
