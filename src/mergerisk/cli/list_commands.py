"""``list``: the names that files and options can give."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import click

from mergerisk.cli.common_options import JSON

if TYPE_CHECKING:
    from pathlib import Path

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
    "ensembles": "how attacks can follow several surrogates",
    "searches": "how a target can be asked on from a transferred image",
    "tables": "further tables that a study can ask for",
    "listeners": "what can be told how a run goes",
    "studies": "studies that ship with the package",
}
"""What ``mergerisk list`` can show, each in a few words."""


@click.command("list")
@click.argument("what", type=click.Choice([*LISTS]), required=False)
@JSON
def list_(what: str | None, json_file: Path | None) -> None:
    """Show the names a study file can use; one line per name if the output goes to a pipe or a file.

    Without a kind of names, show what kinds there are.
    """
    from mergerisk.cli.list_words import describe_kinds, describe_names, names_to_json
    from mergerisk.cli.telling import tell

    if what is None:
        tell(describe_kinds(LISTS), json_file, lambda: json.dumps(LISTS, indent=1))
        return
    words = describe_names(what, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    tell(words, json_file, lambda: names_to_json(what))
