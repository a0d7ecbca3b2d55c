"""What a command found: in words for people, as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def tell(words: str, json_file: Path | None, as_json: Callable[[], str]) -> None:
    """Print what was found, and write it where ``--json`` says; ``-`` prints the JSON alone.

    Raises:
        UserError: the file cannot be written.
    """
    if json_file is not None and str(json_file) == "-":
        click.echo(as_json())
        return
    if json_file is not None:
        from mergerisk.disk import replacing

        with replacing(json_file) as file:
            file.write(as_json().encode())
    click.echo(words)
