"""``doctor``: what is installed, what this machine has, and what to do about what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mergerisk.cli.common_options import EXIT_GATE, JSON


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@JSON
def doctor(folder: Path, json_file: Path | None) -> None:
    """Say what is installed, which extras and devices work, what is free, and what to do about what is wrong.

    FOLDER is where runs are going to be written, by default the current one. Every library is imported once, which
    takes seconds; nothing is downloaded. Exits with 3 if no study can run here.
    """
    from mergerisk.cli.doctor_words import describe_installation, installation_to_json
    from mergerisk.cli.telling import tell
    from mergerisk.installation import look, troubles

    found = look(folder)
    wrong = troubles(found)
    tell(describe_installation(found, wrong), json_file, lambda: installation_to_json(found, wrong))
    if any(trouble.stops for trouble in wrong):
        sys.exit(EXIT_GATE)
