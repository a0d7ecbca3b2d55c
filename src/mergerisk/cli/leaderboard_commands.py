"""``leaderboard``: finished runs ranked on the same terms, and checked before."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mergerisk.cli.common_options import EXIT_GATE, JSON

ENTRIES = click.argument("entries", type=click.Path(path_type=Path))


@click.group()
def leaderboard() -> None:
    """Rank the merges of finished runs and audits: a folder per entry in ENTRIES."""


@leaderboard.command()
@ENTRIES
@click.option("--out", type=click.Path(path_type=Path), metavar="SITE", required=True, help="Folder of the page.")
@JSON
def build(entries: Path, out: Path, json_file: Path | None) -> None:
    """Check every entry, rank them, and write a page with every entry's report into SITE.

    Only methods that were attacked on the same terms are ranked together. No page is written where an entry is
    refused.
    """
    from mergerisk.cli.leaderboard_words import describe_board
    from mergerisk.cli.telling import tell
    from mergerisk.leaderboard.document import to_json
    from mergerisk.leaderboard.running import PAGE
    from mergerisk.leaderboard.running import leaderboard as write_leaderboard

    board = write_leaderboard(entries, out)
    tell(f"{describe_board(board)}\n{out / PAGE}", json_file, lambda: to_json(board))


@leaderboard.command()
@ENTRIES
@JSON
def check(entries: Path, json_file: Path | None) -> None:
    """Recompute every figure of every entry from its outcomes, and exit with 3 if an entry is refused.

    A line says each fault: a figure that differs, outcomes that do not fit the study file, a rule that is broken.
    """
    from mergerisk.cli.leaderboard_words import describe_checked
    from mergerisk.cli.telling import tell
    from mergerisk.leaderboard.checking import check_entries
    from mergerisk.leaderboard.document import checked_to_json

    checked = check_entries(entries)
    tell(describe_checked(checked), json_file, lambda: checked_to_json(checked))
    if any(one.faults for one in checked):
        sys.exit(EXIT_GATE)


@leaderboard.command()
@click.argument("run", type=click.Path(path_type=Path))
@ENTRIES
@click.option("--name", help="Of the entry.  [default: the run's folder's]")
def add(run: Path, entries: Path, name: str | None) -> None:
    """Make an entry in ENTRIES of the finished run or audit in RUN.

    It holds what figures are recomputed from, and the figures: no store, no pictures, and no path of this machine.
    """
    from mergerisk.leaderboard.entries import add_entry

    click.echo(add_entry(run, entries, name))
