"""Build the leaderboard: check every entry, rank them, and write a page that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mergerisk.disk import make_folder
from mergerisk.errors import UserError
from mergerisk.leaderboard.checking import check_entries
from mergerisk.leaderboard.document import leaderboard_of, report_file, to_json
from mergerisk.leaderboard.page import to_html
from mergerisk.report.page import render_html
from mergerisk.study.files import write_bytes

if TYPE_CHECKING:
    from mergerisk.leaderboard.document import Leaderboard

PAGE, JSON = "index.html", "leaderboard.json"


def leaderboard(entries: str | Path, out: str | Path | None = None) -> Leaderboard:
    """Rank the methods of finished runs, those that were attacked on the same terms in one table.

    Args:
        entries: a folder with a folder per entry, each a finished run's or an audit's without its store; or one.
        out: folder for ``index.html``, ``leaderboard.json`` and every entry's report; nothing is written without.

    Raises:
        UserError: an entry is refused, a line per fault, or ``out`` cannot be written to.
    """
    checked = check_entries(Path(entries))
    faults = [f"{one.name}: {fault}" for one in checked for fault in one.faults]
    if faults:
        raise UserError(*faults)
    sound = [one.entry for one in checked if one.entry is not None]
    board = leaderboard_of(sound)
    if out is not None:
        folder = Path(out)
        try:
            make_folder(folder / "reports")
        except OSError as error:
            raise UserError(f"{folder}: cannot be made: {error.strerror}; choose another --out") from error
        for entry in sound:
            write_bytes(folder / report_file(entry.name), render_html(entry.summary).encode())
        write_bytes(folder / JSON, to_json(board).encode())
        write_bytes(folder / PAGE, to_html(board).encode())
    return board
