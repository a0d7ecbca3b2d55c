"""What an entry is: a finished run's folder without its store, as somebody submits it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mergerisk.errors import UserError
from mergerisk.report.explaining import CAUSES, PAIR_CAUSES
from mergerisk.report.export import summary_to_json
from mergerisk.report.kept_explanations import Found
from mergerisk.report.run_summary import judged_summary
from mergerisk.study.fields.basics import check_folder_name
from mergerisk.study.files import write_bytes, write_parquet
from mergerisk.study.finished import RECORD, STUDY, load_run, write_run
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.report.summary import Summary
    from mergerisk.study.finished import FinishedRun

SUMMARY, RESULTS, RESULTS_CSV, VERDICT = "summary.json", "results.parquet", "results.csv", "audit.json"


@dataclass(frozen=True, eq=False)
class Entry:
    """A run to be ranked.

    Attributes:
        name: of its folder.
        folder: where it lies.
        run: what it holds.
        summary: recomputed from its outcomes.
    """

    name: str
    folder: Path
    run: FinishedRun
    summary: Summary


def entry_folders(entries: Path) -> tuple[Path, ...]:
    """The folders of entries: the one given, or those in it, by name.

    Raises:
        UserError: there are none.
    """
    if (entries / RECORD).is_file():
        return (entries,)
    if not entries.is_dir():
        raise UserError(f"{entries}: no such folder; give one with a folder per entry")
    found = tuple(sorted(path for path in entries.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not found:
        raise UserError(f"{entries}: holds no entries; make one of a run: mergerisk leaderboard add RUN {entries}")
    return found


def recomputed(run: FinishedRun) -> Summary:
    """A run's summary from its outcomes, but for what explains them, which takes long and ranks nobody."""
    return judged_summary(run, lambda _run, _summary: Found(None, None))


def add_entry(run: Path, entries: Path, name: str | None = None) -> Path:
    """Make an entry of a finished run: what figures are recomputed from, and the figures. Left behind are
    pictures, diagnostics, and where things lie on this machine.

    Args:
        run: folder of the run, or of an audit.
        entries: folder of entries.
        name: of the entry; the run's folder's by default.

    Returns:
        The entry's folder.

    Raises:
        UserError: there is no finished run, it cannot be written, or there is such an entry.
    """
    finished = load_run(run)
    called = run.resolve().name if name is None else name
    try:
        out = entries / check_folder_name(called, "the entry's folder")
    except ValueError as error:
        raise UserError(f"--name: {error}") from error
    if out.exists():
        raise UserError(f"{out}: there is such an entry; remove it, or give another --name")
    published = _published(finished)
    summary = recomputed(published)
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror}") from error
    write_run(published, out)
    write_bytes(out / STUDY, published.study.to_yaml(places=False).encode())
    write_bytes(out / SUMMARY, summary_to_json(summary).encode())
    write_parquet(summary.results, out / RESULTS)
    if (run / VERDICT).is_file():
        write_bytes(out / VERDICT, (run / VERDICT).read_bytes())
    return out


def _published(run: FinishedRun) -> FinishedRun:
    """A run as far as the leaderboard needs it."""
    own = {"store", "tables"}  # where the store lies; what tables there were, which writing says anew
    record = {name: without_places(value) for name, value in run.record.items() if name not in own}
    kept = tuple(one for one in run.further if one.declared.name not in {CAUSES, PAIR_CAUSES})
    return replace(run, record=record, pictures=[], gradients=[], further=kept)
