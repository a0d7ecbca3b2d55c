"""``store``: what a folder of artefacts holds, whether it is sound, and what can go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import EXIT_GATE
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.store import Store
    from mergerisk.store.housekeeping import Usage

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group("store")
def store_() -> None:
    """Look after a store, or the one of a run: FOLDER is either's.

    A run that works on the store meanwhile is not disturbed.
    """


@store_.command()
@FOLDER
def du(folder: Path) -> None:
    """Show what each kind of artefact in FOLDER takes."""
    from mergerisk.store.housekeeping import usage

    click.echo(_table(usage(_opened(folder))))


@store_.command()
@FOLDER
def verify(folder: Path) -> None:
    """Hold everything in FOLDER against its checksums, and exit with 3 if something is damaged.

    What is damaged is moved aside, and the next run that needs it makes it again.
    """
    from rich.progress import MofNCompleteColumn

    from mergerisk.progress.bar import Bar
    from mergerisk.store.housekeeping import keys
    from mergerisk.store.housekeeping import verify as verify_store

    store = _opened(folder)
    with Bar("verifying", MofNCompleteColumn()) as progress:
        damaged = verify_store(store, progress.listen)
    for found in damaged:
        click.echo(f"damaged, and moved aside: {found.key[:12]} {found.label}".rstrip())
    sound = len(keys(store.root))
    click.echo(f"{sound:,} sound, {len(damaged):,} damaged" + (": run again to make them anew" if damaged else ""))
    if damaged:
        sys.exit(EXIT_GATE)


@store_.command()
@FOLDER
@click.option(
    "--keep",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="RUN",
    help="Remove all artefacts that no RUN given so was made of, each a finished run's folder.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing, show what would go.")
def gc(folder: Path, runs: tuple[Path, ...], dry_run: bool) -> None:
    """Remove from FOLDER what was moved aside as damaged, and what killed processes left.

    Artefacts go only with --keep. Finished runs keep their outcomes and reports in folders of their own: without
    artefacts they can be reported, and a further run computes anew.
    """
    from mergerisk.store.housekeeping import collect
    from mergerisk.study.finished import read_record

    keep = {stage["key"] for run in runs for stage in read_record(run)["stages"]} if runs else None
    gone = collect(_opened(folder), keep, dry=dry_run)
    if not gone:
        click.echo("nothing to remove")
        return
    click.echo(_table(gone))
    if dry_run:
        click.echo("nothing was removed: this shows what would go without --dry-run")


def _opened(folder: Path) -> Store:
    """The store in a folder, or of the run in it.

    Raises:
        UserError: there is none.
    """
    from mergerisk.store import Store
    from mergerisk.study.finished import RECORD, read_record

    for place in (folder, folder / "store"):
        if (place / "objects").is_dir():
            return Store(place)
    if (folder / RECORD).is_file():
        place = folder / str(read_record(folder).get("store", "store"))
        if (place / "objects").is_dir():
            return Store(place)
        raise UserError(f"{folder}: the run's store, {place}, is not there any more")
    raise UserError(f"{folder}: no store; give the folder of one, or of a run")


def _table(shares: Sequence[Usage]) -> str:
    from mergerisk.text_tables import text_table

    total = (sum(share.artefacts for share in shares), sum(share.bytes for share in shares))
    rows = [(share.kind, f"{share.artefacts:,}", _size(share.bytes)) for share in shares]
    return text_table(
        [("kind", "artefacts", "size"), *rows, ("all", f"{total[0]:,}", _size(total[1]))], ruled=True, right=True
    )


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
