"""``init``: a first study or audit file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option(
    "--kind",
    type=click.Choice(["audit", "study"]),
    help="An audit of merged models, or a study of merging methods.  [default: an audit if there are models]",
)
@click.option("--base", metavar="MODEL", help="What all models were made from: a folder, or org/name on the hub.")
@click.option("--merged", metavar="MODEL", help="What is going to be released, if it is merged already.")
@click.option(
    "--images",
    multiple=True,
    metavar="[NAME=]PATH",
    help="Labelled images; repeatable.  [default: all that are found]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The file.  [default: audit.yaml or study.yaml]"
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def init(
    folder: Path,
    kind: Literal["audit", "study"] | None,
    base: str | None,
    merged: str | None,
    images: tuple[str, ...],
    out: Path | None,
    force: bool,
) -> None:
    """Write a first audit or study file, with a word on every field, for what lies in FOLDER.

    Models and labelled images are found by their names and headers; what cannot be told is asked, or said by the
    options.  [default: the current folder]
    """
    from mergerisk.cli.speaking import speaking
    from mergerisk.disk import replacing
    from mergerisk.errors import UserError
    from mergerisk.init import assign, audit_text, find, study_text
    from mergerisk.models.sources.hub import is_hub_id

    found = find(folder)
    kind = kind or ("audit" if found.models or base else "study")
    file = out or folder / f"{kind}.yaml"
    if file.exists() and not force:
        raise UserError(f"{file}: is there already; give another --out, or --force to replace it")
    for pickle in found.pickles if speaking() else ():
        click.echo(
            f"note: {pickle} is pickled: mergerisk convert {pickle} --out DIR, then run init again", err=True
        )

    def shown(path: Path) -> str:
        return Path(os.path.relpath(path, file.parent)).as_posix()

    def placed(said: str | None) -> str | None:
        """As the file says a path of the command line, or a name on the hub."""
        if said is None or is_hub_id(said):
            return said
        if not Path(said).exists():
            raise UserError(f"{said}: no such file or folder, and no name on the hub")
        return shown(Path(said))

    if kind == "audit":
        ask = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
        named = [said.rpartition("=") for said in images]
        sets = [f"{name}{equals}{placed(path)}" for name, equals, path in named]
        roles = assign(found, shown, base=placed(base), merged=placed(merged), images=sets, ask=ask)
        text = audit_text(roles)
        said = [f"base {roles.base}", *(f"ingredient {name}: {path}" for name, path in roles.ingredients.items())]
        said += [f"to be released: {roles.merged}"] if roles.merged else []
        said += [f"images {name}: {path}" for name, path in roles.images.items()]
    else:
        tasks = {one.path.stem: shown(one.path) for one in found.images}
        text, said = study_text(tasks), [f"task {name}: {path}" for name, path in tasks.items()]
    with replacing(file) as written:
        written.write(text.encode())
    for line in said:
        click.echo(line)
    click.echo(f"wrote {file}; look at it, then: mergerisk validate {file} && mergerisk {_RUNS[kind]} {file}")


_RUNS = {"audit": "audit", "study": "run"}


def _ask(question: str, answers: Sequence[str]) -> str:
    said: str = click.prompt(question, type=click.Choice([*answers]), err=True)
    return said
