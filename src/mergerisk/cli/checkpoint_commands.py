"""``merge``, ``convert``: checkpoints into checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from mergerisk.cli.common_options import OFFLINE, SET


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace what an earlier merge left in DIR.")
@SET
@OFFLINE
@click.option("--checksums", is_flag=True, help="Name the SHA-256 of every local ingredient in the model card.")
def merge(recipe: Path, out: Path, force: bool, settings: tuple[str, ...], offline: bool, checksums: bool) -> None:
    """Merge checkpoints on disk or on the hub, as the YAML file RECIPE says, into a model in DIR.

    Tensors are streamed: in memory is one of them at a time, for some methods of every expert. mergekit's
    files are understood where they have a counterpart.
    """
    from rich.progress import DownloadColumn

    from mergerisk.cli.speaking import speaking
    from mergerisk.progress.bar import Bar
    from mergerisk.recipe import load_merges, merge_checkpoints

    shown = speaking()

    def remark(line: str) -> None:
        if shown:
            click.echo(line, err=True)

    for content, place in load_merges(recipe, out, settings=settings):
        with Bar("merging", DownloadColumn(binary_units=True), shown=shown) as progress:
            folder = merge_checkpoints(
                content,
                place,
                force=force,
                offline=offline,
                checksums=checksums,
                listener=progress.listen,
                remark=remark,
            )
        click.echo(folder)


@click.command()
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder to make.")
@click.option("--key", metavar="NAME", help="Where in the file the state dict is, if it holds several.")
@OFFLINE
def convert(source: str, out: Path, key: str | None, offline: bool) -> None:
    """Write pickled weights as safetensors into DIR, with the configurations beside them.

    SOURCE is a file (.bin, .pt, .pth, …), a folder, or org/name on the hub. It is read by PyTorch's restricted
    unpickler in a process of its own: a pickle that wants more than tensors is refused, and never runs.
    """
    from mergerisk.recipe import convert as convert_pickles

    click.echo(convert_pickles(source, out, key=key, offline=offline))
