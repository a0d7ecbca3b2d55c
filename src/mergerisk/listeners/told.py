"""Several who listen to one run, none of whom can end it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mergerisk.errors import described
from mergerisk.listeners.events import RunFailed, SearchStarted
from mergerisk.listeners.run_log import RunLog
from mergerisk.progress.study_progress import StudyProgress
from mergerisk.study.executors.events import RunStarted, Warned
from mergerisk.transfer.redaction import secrets_of_environment, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mergerisk.study.executors.events import Event, Listener


class Told:
    """Tells every listener what happens. One that raises is named in a line, and told no more: no run is lost by a
    log that cannot be written, or a server that does not answer.

    Args:
        listeners: in the order in which they are told.
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = [*listeners]
        self._started = False
        self.shown: Listener | None = None
        """What shows progress: told first, and ends the run if it raises, as a person wants who closes a pipe."""

    def __call__(self, event: Event) -> None:
        self._started = self._started or isinstance(event, RunStarted | SearchStarted)
        if self.shown is not None:
            self.shown(event)
        for listener in [*self._listeners]:
            if listener not in self._listeners:  # it failed at what another's failure gave to tell
                continue
            try:
                listener(event)
            except Exception as error:
                self._listeners.remove(listener)
                said = without_logins(secrets_of_environment().hidden(described(error)))
                self(Warned(f"{called(listener)} failed, and is told no more; the run goes on: {said}"))

    @contextmanager
    def showing(self, progress: bool) -> Iterator[None]:
        """Show how far it is meanwhile, if anybody is to see it."""
        if not progress:
            yield
            return
        with StudyProgress() as self.shown:
            yield

    def failed(self, error: BaseException) -> None:
        """Tell that the run ended so, if it had started."""
        if self._started:
            self(RunFailed(error))


@contextmanager
def listening(listeners: Iterable[Listener] = ()) -> Iterator[Told]:
    """A run's log, and whoever else listens; what ends the run is told too."""
    with RunLog() as log:
        told = Told([log, *listeners])
        try:
            yield told
        except BaseException as error:
            told.failed(error)
            raise


def called(listener: Listener) -> str:
    """What a listener is called: as its ``name`` says, else as its class or function is."""
    own = getattr(listener, "name", None)
    if isinstance(own, str):
        return f"listener {own}"
    return f"listener {getattr(listener, '__qualname__', type(listener).__qualname__)}"
