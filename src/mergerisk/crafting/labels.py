"""What images show: by the folder they are in, or by a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.tasks.arrays import Skipped
from mergerisk.tasks.class_names import one_form
from mergerisk.tasks.splits import is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mergerisk.tasks.class_names import Classes


@dataclass(frozen=True)
class Written:
    """What somebody says that an image shows.

    Attributes:
        text: the class, as it is written.
        where: where it is written, to begin an error with.
        folder: whether it is the name of a folder.
    """

    text: str
    where: str
    folder: bool = False


def read_folders(names: Sequence[str]) -> tuple[dict[str, Written], list[Skipped]]:
    """By name of the file, the outermost folder it is in; and the files that are in none."""
    said, skipped = {}, []
    for name in names:
        folder, inside, _ = name.partition("/")
        if inside:
            said[name] = Written(folder, f"folder {folder!r}", folder=True)
        else:
            skipped.append(Skipped(name, "beside the class folders"))
    return said, skipped


def read_table(table: Path, names: Sequence[str]) -> tuple[dict[str, Written], list[Skipped]]:
    """By name of the file, what a CSV table with the columns ``file`` and ``label`` says; and all other files.

    Raises:
        UserError: the table cannot be read, lacks a column, or names a file twice or one that is not there.
    """
    said: dict[str, Written] = {}
    # A table may compose accents otherwise than the file system.
    there = {one_form(name): name for name in names} | {name: name for name in names}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = {"file", "label"} - set(rows.fieldnames or ())
            if missing:
                raise UserError(f"{table}: no column {min(missing)!r}; its first line must be: file,label")
            for row in rows:
                where = f"{table}, line {rows.line_num}"
                called = (row["file"] or "").strip().removeprefix("./")
                name = there.get(called) or there.get(one_form(called))
                if name is None:
                    raise UserError(f"{where}: no file {called!r} among the images{did_you_mean(called, names)}")
                if name in said:
                    raise UserError(f"{where}: {called!r} is given twice")
                said[name] = Written(row["label"] or "", where)
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a CSV table in UTF-8: {error}") from error
    return said, [Skipped(name, f"not in {table.name}") for name in names if name not in said]


def to_labels(said: Mapping[str, Written], classes: Classes) -> dict[str, int]:
    """By name of the file, the row of the class that it is said to show.

    Raises:
        UserError: there is no such class, or there are several.
    """
    different = dict.fromkeys(said.values())
    for what in different:
        if what.folder and is_plain(what.text) and not classes.find(what.text):
            raise UserError(f"{what.where}: a split by its name, and no class; give that folder instead")
    rows = {what: classes.index(what.text, what.where) for what in different}
    return {name: rows[what] for name, what in said.items()}


def has_class_folders(images: Path) -> bool:
    """Whether the folder of each image says what it shows."""
    return any(path.is_dir() and not path.name.startswith(".") for path in images.iterdir())


def read_said(
    images: Path, names: Sequence[str], table: Path | None
) -> tuple[dict[str, Written] | None, list[Skipped]]:
    """What images are said to show, by the table if there is one, else by class folders; and the files without.

    Returns:
        None for the former where nothing tells.

    Raises:
        UserError: see :func:`read_table`.
    """
    if table is not None:
        return read_table(table, names)
    if has_class_folders(images):
        return read_folders(names)
    return None, []


def read_labels(
    images: Path, names: Sequence[str], table: Path | None, classes: Classes
) -> tuple[dict[str, int] | None, list[Skipped]]:
    """Labels by name of the file, and the files without; see :func:`read_said` and :func:`to_labels`."""
    said, skipped = read_said(images, names, table)
    return None if said is None else to_labels(said, classes), skipped


def counting_remark(labels: Mapping[str, int], classes: Classes) -> tuple[str, ...]:
    """What must be said where labels may have been meant to count from 1, and nothing tells."""
    if classes.names is not None or not labels or min(labels.values()) != 1:
        return ()
    remark = "no image is labelled 0: labels are the model's rows, counted from 0"
    return (f"{remark}; if yours count from 1, all are off by one",)
