"""``doctor``: what is installed, what this machine has, and what to do about what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mergerisk.cli.common_options import EXIT_GATE


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write all of it as JSON.")
def doctor(folder: Path, out: Path | None) -> None:
    """Say what is installed, which extras and devices work, what is free, and what to do about what is wrong.

    FOLDER is where runs are going to be written, by default the current one. Every library is imported once, which
    takes seconds; nothing is downloaded. Exits with 3 if no study can run here.
    """
    from mergerisk.cli.doctor_words import describe_installation, installation_to_json
    from mergerisk.disk import replacing
    from mergerisk.installation import look, troubles

    found = look(folder)
    wrong = troubles(found)
    if out is not None:
        with replacing(out) as file:
            file.write(installation_to_json(found, wrong).encode())
    click.echo(describe_installation(found, wrong))
    if any(trouble.stops for trouble in wrong):
        sys.exit(EXIT_GATE)
