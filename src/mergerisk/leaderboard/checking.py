"""What an entry must satisfy: recomputed from its outcomes, a line per fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from mergerisk._version import __version__
from mergerisk.errors import UserError, described
from mergerisk.leaderboard.agreeing import disagreements
from mergerisk.leaderboard.entries import Entry, entry_folders, recomputed
from mergerisk.leaderboard.fitting import misfits
from mergerisk.leaderboard.verdicts import verdict_faults
from mergerisk.study.finished import load_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mergerisk.study.finished import FinishedRun


@dataclass(frozen=True, eq=False)
class Checked:
    """What came of checking an entry.

    Attributes:
        name: of the entry.
        faults: why it is refused, a line each; none of one that is sound.
        entry: what was read; None where that failed.
    """

    name: str
    faults: tuple[str, ...]
    entry: Entry | None


def check_entries(entries: Path) -> tuple[Checked, ...]:
    """Check every entry.

    Args:
        entries: a folder of entries, or one entry.

    Raises:
        UserError: there are none.
    """
    return tuple(check_entry(folder) for folder in entry_folders(entries))


def check_entry(folder: Path) -> Checked:
    """Check one entry. Where its outcomes do not fit its study file, its figures are not looked at."""
    name = folder.resolve().name
    try:
        run = load_run(folder)
    except UserError as error:
        return Checked(name, tuple(fault.removeprefix(f"{folder}/") for fault in error.faults), None)
    faults = [*_version(run), *_rules(run), *misfits(run)]
    if faults:
        return Checked(name, tuple(faults), None)
    try:
        entry = Entry(name, folder, run, recomputed(run))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # who submits it may have written anything
        return Checked(name, (f"its figures cannot be recomputed: {described(error)}",), None)
    return Checked(name, (*disagreements(entry), *verdict_faults(entry)), entry)


def _version(run: FinishedRun) -> Iterator[str]:
    """A version that this one cannot know."""
    said = run.record["versions"].get("mergerisk")
    try:
        newer = Version(str(said)) > Version(__version__)
    except InvalidVersion:
        yield f"run.json: versions: names no version of mergerisk, but {said!r}"
        return
    if newer:
        yield f"run.json: made by mergerisk {said}, this is {__version__}: check it with that or a later one"


def _rules(run: FinishedRun) -> Iterator[str]:
    """What the leaderboard asks for besides figures that agree."""
    study = run.study
    if study.calibration != "held_out":
        yield (
            f"study.yaml: calibration: {study.calibration}: merges that read data have read the attacked images; "
            "run it with calibration: held_out"
        )
    if study.attacked != "test":
        yield (
            f"study.yaml: attacked: {study.attacked}: those are the images that merges read and recipes are "
            "chosen by; run it with attacked: test"
        )
    if not study.ranked:
        yield "study.yaml: has no method that could be ranked"
