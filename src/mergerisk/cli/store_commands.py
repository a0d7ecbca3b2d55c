"""``store``: what a folder of artefacts holds, whether it is sound, and what can go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import EXIT_GATE, JSON
from mergerisk.cli.telling import tell
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
@JSON
def du(folder: Path, json_file: Path | None) -> None:
    """Show what each kind of artefact in FOLDER takes."""
    from mergerisk.report.export import found_to_json
    from mergerisk.store.housekeeping import usage

    found = usage(_opened(folder))
    tell(_table(found), json_file, lambda: found_to_json({"kinds": found}))


@store_.command()
@FOLDER
@JSON
def verify(folder: Path, json_file: Path | None) -> None:
    """Hold everything in FOLDER against its checksums, and exit with 3 if something is damaged.

    What is damaged is moved aside, and the next run that needs it makes it again.
    """
    from rich.progress import MofNCompleteColumn

    from mergerisk.cli.speaking import speaking
    from mergerisk.progress.bar import Bar
    from mergerisk.report.export import found_to_json
    from mergerisk.store.housekeeping import keys
    from mergerisk.store.housekeeping import verify as verify_store

    store = _opened(folder)
    with Bar("verifying", MofNCompleteColumn(), shown=speaking()) as progress:
        damaged = verify_store(store, progress.listen)
    sound = len(keys(store.root))
    lines = [f"damaged, and moved aside: {found.key[:12]} {found.label}".rstrip() for found in damaged]
    again = ": run again to make them anew" if damaged else ""
    words = "\n".join([*lines, f"{sound:,} sound, {len(damaged):,} damaged{again}"])
    tell(words, json_file, lambda: found_to_json({"sound": sound, "damaged": damaged}))
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
@JSON
def gc(folder: Path, runs: tuple[Path, ...], dry_run: bool, json_file: Path | None) -> None:
    """Remove from FOLDER what was moved aside as damaged, and what killed processes left.

    Artefacts go only with --keep. Finished runs keep their outcomes and reports in folders of their own: without
    artefacts they can be reported, and a further run computes anew.
    """
    from mergerisk.report.export import found_to_json
    from mergerisk.store.housekeeping import collect
    from mergerisk.study.finished import read_record

    keep = {stage["key"] for run in runs for stage in read_record(run)["stages"]} if runs else None
    gone = collect(_opened(folder), keep, dry=dry_run)
    dry = "\nnothing was removed: this shows what would go without --dry-run" if dry_run else ""
    words = f"{_table(gone)}{dry}" if gone else "nothing to remove"
    tell(words, json_file, lambda: found_to_json({"removed": not dry_run, "kinds": gone}))


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
    from mergerisk.disk import mebibytes
    from mergerisk.text_tables import text_table

    total = (sum(share.artefacts for share in shares), sum(share.bytes for share in shares))
    rows = [(share.kind, f"{share.artefacts:,}", mebibytes(share.bytes, 1)) for share in shares]
    return text_table(
        [("kind", "artefacts", "size"), *rows, ("all", f"{total[0]:,}", mebibytes(total[1], 1))],
        ruled=True,
        right=True,
    )
