"""The runs that lie in a folder, finished and not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mergerisk.errors import UserError
from mergerisk.study.finished import RECORD, STUDY, read_record
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DEEPEST = 3
"""Folders below the one that is looked into."""


@dataclass(frozen=True)
class FoundRun:
    """A run's folder.

    Attributes:
        folder: of the run.
        study: its name.
        state: ``finished``; ``not finished``, which running it again resumes; or ``damaged``.
        started: date and time, as ISO 8601 has them; empty of what is not finished.
        seconds: in which something was computed; None likewise.
        bytes: of the folder, its store among them.
    """

    folder: Path
    study: str
    state: Literal["finished", "not finished", "damaged"]
    started: str
    seconds: float | None
    bytes: int


def find_runs(folder: Path) -> tuple[FoundRun, ...]:
    """Every run in a folder, or that it is itself, the latest last.

    Args:
        folder: of runs, as ``runs``; folders in it are looked into, three deep.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; runs are written to runs/NAME, where mergerisk run is started")
    return tuple(sorted(map(_look, _folders(folder, _DEEPEST)), key=lambda run: (run.started, str(run.folder))))


def _folders(folder: Path, deep: int) -> Iterator[Path]:
    if (folder / STUDY).is_file():
        yield folder
    elif deep:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink():
                yield from _folders(inner, deep - 1)


def _look(folder: Path) -> FoundRun:
    size = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        name = str(read_mapping(folder / STUDY, "a study").get("name", folder.name))
        if not (folder / RECORD).is_file():
            return FoundRun(folder, name, "not finished", "", None, size)
        record = read_record(folder)
    except UserError:
        return FoundRun(folder, folder.name, "damaged", "", None, size)
    return FoundRun(folder, name, "finished", record["started"], record["seconds"], size)
