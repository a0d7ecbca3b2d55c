"""A finished run: what its folder keeps, written and read back without what it was computed from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError

from mergerisk.errors import UserError, first_line
from mergerisk.study.examples import pictures_to_bytes, read_pictures
from mergerisk.study.files import write_bytes, write_parquet
from mergerisk.study.gradient_pictures import gradients_to_bytes, read_gradients
from mergerisk.study.tables.catalogue import Kept
from mergerisk.study.tables.clean import CLEAN
from mergerisk.study.tables.declared import Declared
from mergerisk.study.tables.outcomes import BY_STEP, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mergerisk.study.examples import Picture
    from mergerisk.study.gradient_pictures import GradientPicture
    from mergerisk.study.schema import Study

RECORD = "run.json"
PICTURES = "examples.safetensors"
GRADIENTS = "gradients.safetensors"
STUDY = "study.yaml"

_ALWAYS = (OUTCOMES, BY_STEP, CLEAN)
_FURTHER = "tables"
"""Where ``run.json`` says what the study's further tables are."""

_FACTS: Mapping[str, type | tuple[type, ...]] = {
    "versions": dict,
    "device": str,
    "workers": int,
    "git_revision": (str, type(None)),
    "started": str,
    "seconds": (int, float),
    "kinds": dict,
    "stages": list,
    "counts": dict,
    "single_step_attacks": list,
}
"""What every report needs of ``run.json``."""

_AGAIN = "run the study again, finished stages are kept"


@dataclass(frozen=True)
class FinishedRun:
    """A study whose every stage is done.

    Attributes:
        study: what was run, resolved.
        outcomes: one row per image and setting.
        by_step: the same for every iterate that was kept, of the attacks of which one was kept on the way; may
            be empty.
        clean: one row per test image and model.
        pictures: a few attacked images.
        record: what ``run.json`` holds: when, where, how long.
        further: the tables that the study asks for besides.
        gradients: of two models on a few images, where the study asks for their alignment.
    """

    study: Study
    outcomes: pd.DataFrame
    by_step: pd.DataFrame
    clean: pd.DataFrame
    pictures: list[Picture]
    record: dict[str, Any]
    further: tuple[Kept, ...] = ()
    gradients: list[GradientPicture] = field(default_factory=list)

    @property
    def tables(self) -> tuple[Kept, ...]:
        """Every table of the run's folder."""
        always = (Kept(OUTCOMES, self.outcomes), Kept(BY_STEP, self.by_step), Kept(CLEAN, self.clean))
        return (*always, *self.further)


def write_run(run: FinishedRun, out: Path) -> None:
    """Write what :func:`load_run` reads, but for the study, which was written before the first stage.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    for declared, rows in run.tables:
        write_parquet(rows, out / declared.file)
    write_bytes(out / PICTURES, pictures_to_bytes(run.pictures))
    if run.gradients:
        write_bytes(out / GRADIENTS, gradients_to_bytes(run.gradients))
    else:
        (out / GRADIENTS).unlink(missing_ok=True)  # of another study that was replaced
    said = {_FURTHER: {declared.name: declared.to_plain() for declared, _ in run.further}} if run.further else {}
    write_bytes(out / RECORD, json.dumps(run.record | said, indent=1).encode())


def load_run(out: Path) -> FinishedRun:
    """A finished run from its folder alone: neither the store nor anything that the study names need be there.

    Raises:
        UserError: the folder holds no finished run, or one of its files is not what a run leaves; the message
            names it.
    """
    from mergerisk.study.reading import load_study

    for name in (RECORD, *(declared.file for declared in _ALWAYS), PICTURES, STUDY):
        if not (out / name).is_file():
            raise UserError(f"{out}: {name} is missing; this is no finished run, make one with: mergerisk run")
    study = load_study(out / STUDY, resolve=False, files=False)  # it was resolved when it was written
    outcomes, by_step, clean = (_table(out, declared) for declared in _ALWAYS)
    pictures, record = _read(out / PICTURES, read_pictures), read_record(out)
    further = tuple(Kept(declared, _table(out, declared)) for declared in _further(out, record))
    gradients = _read(out / GRADIENTS, read_gradients) if (out / GRADIENTS).is_file() else []
    return FinishedRun(study, outcomes, by_step, clean, pictures, record, further, gradients)


def read_record(out: Path) -> dict[str, Any]:
    """What ``run.json`` holds.

    Raises:
        UserError: it is missing, cannot be read, or lacks what a report needs.
    """
    place = out / RECORD
    record = _read(place, lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(record, dict):
        raise UserError(f"{place}: holds no mapping; {_AGAIN}")
    for name, kind in _FACTS.items():
        if not isinstance(record.get(name, ...), kind):
            wrong = "is not what it should be" if name in record else "is missing"
            raise UserError(f"{place}: {name!r} {wrong}: damaged, or of another version of mergerisk; {_AGAIN}")
    return record


def _further(out: Path, record: Mapping[str, Any]) -> list[Declared]:
    """The tables besides those of every run, as they were declared when they were written."""
    try:
        return [Declared.from_plain(name, said) for name, said in record.get(_FURTHER, {}).items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{out / RECORD}: {_FURTHER!r} is not what it should be: damaged; {_AGAIN}") from error


def _table(out: Path, declared: Declared) -> pd.DataFrame:
    """A table of the run's folder.

    Raises:
        UserError: it cannot be read, or is not what it is declared to be.
    """
    path = out / declared.file
    table: pd.DataFrame = _read(path, pd.read_parquet)
    fault = declared.fault_of(table)
    if fault is not None:
        cause = ": damaged, or of another version of mergerisk" if fault.startswith("lacks") else ""
        raise UserError(f"{path}: {fault}{cause}; {_AGAIN}")
    return table


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:  # pyarrow's are ValueErrors
        raise UserError(f"{path}: cannot be read: {first_line(error)}; {_AGAIN}") from error
