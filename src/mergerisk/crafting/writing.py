"""The folder that crafting leaves behind."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from mergerisk.disk import write_flushed
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

TABLE, SUMMARY = "attack.csv", "attack.json"


def check_output(out: Path, *, force: bool, images: Path, models: Iterable[Path]) -> None:
    """See that a folder may be written.

    Args:
        out: the folder.
        force: whether what an earlier run left there may be replaced.
        images: the folder of images, which must not come to hold ``out``.
        models: where models may be, which must not be lost.

    Raises:
        UserError: it holds something else, or lies where it must not.
    """
    place = out.resolve()
    if place.is_relative_to(images.resolve()):
        raise UserError(f"{out}: lies within the images; choose another --out")
    for path in (images, *models):
        if path.exists() and path.resolve().is_relative_to(place):
            raise UserError(f"{out}: holds {path}, which is read; choose another --out")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise UserError(f"{out}: not empty; choose another --out, or replace an earlier attack's with --force")
    own = _written_before(out)
    for file in sorted(out.rglob("*")):
        if not file.is_dir() and file.relative_to(out).as_posix() not in own:
            raise UserError(
                f"{file}: left by no earlier attack, so --force does not replace it; choose another --out"
            )


def _written_before(out: Path) -> set[str]:
    """The files that the table of an earlier run names, and the table."""
    try:
        with (out / TABLE).open(newline="", encoding="utf-8") as file:
            return {TABLE, SUMMARY} | {row["saved"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error, UnicodeDecodeError):
        return set()


def png_names(names: Sequence[str]) -> dict[str, str]:
    """Names of the saved images: with ``.png`` for the ending, or after it if that makes two names one."""
    short = {name: str(PurePosixPath(name).with_suffix(".png")) for name in names}
    if len({name.casefold() for name in short.values()}) == len(short):
        return short
    return {name: f"{name}.png" for name in names}


def write_png(path: Path, pixels: torch.Tensor) -> None:
    """Write an image, uint8, 3 × H × W, to the disk."""
    content = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_flushed(path, content.getvalue())
