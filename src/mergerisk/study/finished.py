"""A finished run: what its folder keeps, written and read back without what it was computed from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from safetensors import SafetensorError

from mergerisk.errors import UserError, first_line
from mergerisk.study.examples import pictures_to_bytes, read_pictures
from mergerisk.study.files import write_bytes, write_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mergerisk.study.examples import Picture
    from mergerisk.study.schema import Study

RECORD = "run.json"
OUTCOMES = "outcomes.parquet"
BY_STEP = "outcomes_by_step.parquet"
CLEAN = "clean.parquet"
PICTURES = "examples.safetensors"
STUDY = "study.yaml"

_NAMES = ("task", "attack", "surrogate", "target")
_NUMBERS = (
    "epsilon", "seed", "steps", "image", "label", "surrogate_clean", "target_clean", "surrogate_adversarial",
    "target_adversarial", "aimed_at", "l2", "linf", "zero_gradients",
)  # fmt: skip
_CLEAN_NAMES = ("task", "model")
_CLEAN_NUMBERS = ("seed", "image", "label", "prediction")

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
    """

    study: Study
    outcomes: pd.DataFrame
    by_step: pd.DataFrame
    clean: pd.DataFrame
    pictures: list[Picture]
    record: dict[str, Any]


def write_run(run: FinishedRun, out: Path) -> None:
    """Write what :func:`load_run` reads, but for the study, which was written before the first stage.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    write_parquet(run.outcomes, out / OUTCOMES)
    write_parquet(run.by_step, out / BY_STEP)
    write_parquet(run.clean, out / CLEAN)
    write_bytes(out / PICTURES, pictures_to_bytes(run.pictures))
    write_bytes(out / RECORD, json.dumps(run.record, indent=1).encode())


def load_run(out: Path) -> FinishedRun:
    """A finished run from its folder alone: neither the store nor anything that the study names need be there.

    Raises:
        UserError: the folder holds no finished run, or one of its files is not what a run leaves; the message
            names it.
    """
    from mergerisk.study.schema import load_study

    for name in (RECORD, OUTCOMES, BY_STEP, CLEAN, PICTURES, STUDY):
        if not (out / name).is_file():
            raise UserError(f"{out}: {name} is missing; this is no finished run, make one with: mergerisk run")
    return FinishedRun(
        load_study(out / STUDY, resolve=False, files=False),  # it was resolved when it was written
        _table(out / OUTCOMES, _NAMES, _NUMBERS),
        _table(out / BY_STEP, _NAMES, _NUMBERS, empty=True),
        _table(out / CLEAN, _CLEAN_NAMES, _CLEAN_NUMBERS),
        _read(out / PICTURES, read_pictures),
        read_record(out),
    )


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


def _table(path: Path, names: tuple[str, ...], numbers: tuple[str, ...], *, empty: bool = False) -> pd.DataFrame:
    table: pd.DataFrame = _read(path, pd.read_parquet)
    for column in (*names, *numbers):
        if column not in table.columns:
            raise UserError(
                f"{path}: lacks the column {column!r}: damaged, or of another version of mergerisk; {_AGAIN}"
            )
        if column in numbers and not is_numeric_dtype(table[column]):
            raise UserError(f"{path}: the column {column!r} holds no numbers; {_AGAIN}")
    if table.empty and not empty:
        raise UserError(f"{path}: holds no rows; {_AGAIN}")
    return table


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:  # pyarrow's are ValueErrors
        raise UserError(f"{path}: cannot be read: {first_line(error)}; {_AGAIN}") from error
