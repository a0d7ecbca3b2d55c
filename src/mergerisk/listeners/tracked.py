"""What a tracker of experiments is told of a run: bounded parameters, figures with intervals, tables, files. A
search for recipes is one run of the tracker, with its candidates and all of the run in which the best are
measured."""

from __future__ import annotations

import importlib
import math
import re
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import yaml

from mergerisk.errors import UserError, first_line
from mergerisk.listeners.events import (
    Candidate,
    RunFailed,
    RunFinished,
    RunStarted,
    SearchFinished,
    SearchRound,
    SearchStarted,
    StageEnded,
)
from mergerisk.provenance import git_revision, versions
from mergerisk.report.view import view_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mergerisk.listeners.events import Event
    from mergerisk.report.summary import Summary
    from mergerisk.study.schema import Study

MOST_PARAMETERS = 200
"""Of a study; what it has beyond is in the report, which is kept too."""
LONGEST = 250
"""Characters of a parameter."""
EVERY = 10.0
"""Seconds between looks at how far a run is, which go over a network."""
FILES = ("results.csv", "summary.json", "report.html")
"""Of the run's folder, which are kept."""

_UNFIT = re.compile(r"[^\w./ :-]")
"""What not every tracker takes in a name."""


class Tracker(ABC):
    """A listener that records runs elsewhere; how, says a subclass."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._open = False
        self._done = 0
        self._said = 0.0
        self._searching = False
        self._candidates: tuple[Candidate, ...] = ()
        self._files: list[Path] = []

    def __call__(self, event: Event) -> None:
        """Record what happened. Where that fails, what was recorded is ended as failed, if that can be said."""
        try:
            self._record(event)
        except Exception:
            if self._open:
                self._open = False
                with suppress(Exception):
                    self.end("failed")
            raise

    def _record(self, event: Event) -> None:
        if isinstance(event, SearchStarted):
            self._begin(event.study, search_parameters(event), searching=True)
        elif isinstance(event, RunStarted):
            if not (self._open and self._searching):
                self._begin(event.study, {}, searching=False)
        elif not self._open:
            return
        elif isinstance(event, StageEnded) and event.outcome.status == "done":
            self._done += 1
            if time.monotonic() - self._said >= EVERY:
                self._said = time.monotonic()
                self.progress(self._done, {"stages_done": self._done})
        elif isinstance(event, SearchRound):
            self._tried(event.candidates)
        elif isinstance(event, RunFinished):
            self.measure(metrics_of(event.summary))
            for name, table in tables_of(event.summary).items():
                self.table(name, table)
            self._files = [event.folder / name for name in FILES]
            if not self._searching:
                self.keep(self._files)
                self._end("finished")
        elif isinstance(event, SearchFinished):
            self.measure(recommended_metrics(event))
            self.table("candidates", pd.DataFrame(self._candidates))
            self.table("recipes", event.measured)
            self.conclude(event.headline)
            self.keep([*self._files, *event.files])
            self._end("finished")
        elif isinstance(event, RunFailed):
            self._end("failed" if isinstance(event.error, Exception) else "stopped")

    def _begin(self, study: Study, further: Mapping[str, str], *, searching: bool) -> None:
        revision = git_revision()
        facts = versions() | ({} if revision is None else {"git_revision": revision})
        self._open, self._done, self._said = True, 0, time.monotonic()
        self._searching, self._candidates, self._files = searching, (), []
        self.begin(study.name, {**further, **parameters_of(study)}, facts)

    def _tried(self, candidates: tuple[Candidate, ...]) -> None:
        """Tell of the candidates that are new."""
        known = {one.number for one in self._candidates}
        self._candidates = candidates
        for one in candidates:
            if one.number not in known:
                self.progress(one.number, candidate_metrics(one))
        best = sum(one.best for one in candidates)
        self.progress(len(candidates), {"recipes_tried": len(candidates), "best_trades": best})

    def _end(self, how: str) -> None:
        self._open = False
        self.end(how)

    @abstractmethod
    def begin(self, study: str, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        """A run of a study starts.

        Args:
            study: its name.
            parameters: of the study.
            facts: the versions that run it.
        """

    @abstractmethod
    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        """How far it is, and what each recipe that is tried comes to.

        Args:
            step: which stage or recipe this is, from 0; each name has steps of its own.
            figures: finite.
        """

    @abstractmethod
    def measure(self, metrics: Mapping[str, float]) -> None:
        """What was found; every number is finite."""

    @abstractmethod
    def table(self, name: str, table: pd.DataFrame) -> None:
        """A table of what was found."""

    @abstractmethod
    def keep(self, files: list[Path]) -> None:
        """Files of the run's folder."""

    @abstractmethod
    def conclude(self, headline: str) -> None:
        """What a search recommends, in sentences."""

    @abstractmethod
    def end(self, how: str) -> None:
        """The run is over: ``finished``, ``failed``, also to begin, or ``stopped``."""


def parameters_of(study: Study) -> dict[str, str]:
    """A resolved study, flat: ``budgets.epsilon`` → ``2/255, 4/255``. No place on this machine is in it."""
    found: dict[str, str] = {}
    for name, value in _flat(yaml.safe_load(study.to_yaml(places=False)), ""):
        if len(found) == MOST_PARAMETERS - 1:
            found["more"] = "further parameters are in report.html"
            break
        found[_free(name, found)] = value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
    return found


def search_parameters(started: SearchStarted) -> dict[str, str]:
    """What a search may do, beside the parameters of its study."""
    limits = {"seed": started.seed, "seconds": started.seconds, "trials": started.trials}
    return {f"searching.{name}": f"{value:.12g}" for name, value in limits.items() if value is not None}


def candidate_metrics(one: Candidate) -> dict[str, float]:
    """Where a recipe stands in a search; what is not finite is left out."""
    found = {"candidate/clean_accuracy": one.clean_accuracy, "candidate/epsilon50": one.epsilon50}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def recommended_metrics(finished: SearchFinished) -> dict[str, float]:
    """Figures of the recommended recipe under one name, to compare searches by; see :func:`metrics_of`."""
    (row,) = finished.measured[finished.measured["name"] == finished.recommended].to_dict("records")
    columns = {"clean_accuracy": "accuracy", "epsilon50": "epsilon50"}
    found = {
        f"recommended/{name}{end and '/' + end}": float(row[f"{column}{end and '_' + end}"])
        for name, column in columns.items()
        for end in ("", "low", "high")
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Names and values of everything in plain data; lists of plain values as one."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        for number, part in enumerate(value):
            yield from _flat(part, f"{name}.{number}")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def metrics_of(summary: Summary) -> dict[str, float]:
    """Figures to compare runs by, of every model: clean accuracy, and under its worst attacker ASR, relative ASR
    and ε50, each with the ends of its 95 % interval; and the seconds of every kind of stage. Rates are in [0, 1],
    budgets in pixel units; what is not known, or not finite, is left out."""
    view = view_of(summary)
    found: dict[str, float] = {"epsilon": view.epsilon, "seconds": summary.run.seconds}
    for model in view.axes.targets:
        worst = view.worst.get(model)
        told: dict[str, Any] = {"clean_accuracy": view.accuracies.get(model)}
        if worst is not None:
            told |= {"asr": worst.asr, "relative_asr": worst.relative, "epsilon50": worst.epsilon50}
        for name, one in told.items():
            if one is not None:
                place = _free(f"{name}/{model}", found)
                found |= {place: one.value, f"{place}/low": one.low, f"{place}/high": one.high}
    found |= {f"seconds/{stage.kind}": stage.seconds for stage in summary.run.stages}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def tables_of(summary: Summary) -> dict[str, pd.DataFrame]:
    """Rates of every setting with their intervals, ε50 of every curve, clean accuracy of every model and task."""
    tables = {"rates": summary.results, "epsilon50": summary.epsilon50, "clean_accuracy": summary.accuracy}
    return {
        name: table.astype({column: str for column in table.columns if table[column].dtype.name == "category"})
        for name, table in tables.items()
    }


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that every tracker takes, and that is not taken."""
    name = _UNFIT.sub("_", name)
    while name in taken:
        name += "_"
    return name


def library(module: str, title: str, extra: str) -> Any:
    """A tracker's library.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"listener {extra}: {title} cannot be imported ({first_line(error)}): pip install 'mergerisk[{extra}]'"
        ) from error
