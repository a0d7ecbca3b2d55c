"""What ``mergerisk runs`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergerisk.disk import mebibytes
from mergerisk.report.formatting import MISSING, duration, plural
from mergerisk.text_tables import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mergerisk.study.found_runs import FoundRun


def describe_runs(folder: Path, found: Sequence[FoundRun]) -> str:
    """A table of runs, and how to go on."""
    if not found:
        return f"no run in {folder}; make one with: mergerisk run demo"
    rows = [
        (
            str(run.folder),
            run.study,
            run.state,
            run.started[:16].replace("T", " ") or MISSING,
            MISSING if run.seconds is None else duration(run.seconds),
            mebibytes(run.bytes, 1),
        )
        for run in found
    ]
    table = text_table([("folder", "study", "state", "started (UTC)", "took", "size"), *rows], ruled=True)
    unfinished = sum(run.state == "not finished" for run in found)
    left = f"; {plural(unfinished, 'run')} to resume with: mergerisk run STUDY --out FOLDER" if unfinished else ""
    return f"{table}\nmergerisk show FOLDER prints a result again, mergerisk report FOLDER draws its page{left}"
