"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click

from mergerisk.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABOUT = """# Commands

Exit codes: 0 done, 1 our fault, 2 a mistake in what was asked for (one line says where), 3 a gate failed,
130 interrupted.
"""


def page() -> str:
    """Every command with what it takes."""
    return "\n".join([_ABOUT, *_sections(cli, "mergerisk")])


def _sections(group: click.Group, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if command.hidden:
            continue
        title = f"{path} {name}"
        if isinstance(command, click.Group):
            yield f"## {title}\n\n{_prose(command)}\n"
            yield from _sections(command, title)
            continue
        context = click.Context(command, info_name=title)
        usage = " ".join(["", *command.collect_usage_pieces(context)])
        yield f"## {title}\n\n```text\n{title}{usage}\n```\n\n{_prose(command)}\n"
        rows = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
        shown = [f"| `{_cell(row[0])}` | {_cell(row[1])} |" for row in rows if row]
        if shown:
            yield "\n".join(["| option | what it does |", "|---|---|", *shown, ""])


def _prose(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or command.short_help or "").replace("\b\n", "")
    return re.sub(r"(?<![\w`/])([A-Z]{3,}(?:_[A-Z]+)*)(?![\w`])", r"`\1`", text) if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
