"""``list``: the names that files and options can give."""

from __future__ import annotations

import shutil
import sys

import click

LISTS = {
    "tasks": "what models are attacked on: the starter suite's, and those of the hub that have a name",
    "backbones": "what a model may be given as",
    "surrogates": "models that the attacker may hold",
    "merging": "merging methods, and corrections on top of them",
    "attacks": "transfer attacks",
    "causes": "diagnostics that may explain transfer",
    "defenses": "what can be put around a merge",
    "inputs": "input transformations that attacks can name",
    "filters": "gradient filters that attacks can name",
    "studies": "studies that ship with the package",
}
"""What ``mergerisk list`` can show, each in a few words."""


@click.command("list")
@click.argument("what", type=click.Choice([*LISTS]), required=False)
def list_(what: str | None) -> None:
    """Show the names a study file can use; one line per name if the output goes to a pipe or a file.

    Without a kind of names, show what kinds there are.
    """
    from mergerisk.cli.list_words import describe_kinds, describe_names

    if what is None:
        click.echo(describe_kinds(LISTS))
        return
    click.echo(describe_names(what, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
