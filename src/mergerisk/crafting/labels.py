"""What images show: by the folder they are in, or by a table."""

from __future__ import annotations

import csv
from collections import defaultdict
from typing import TYPE_CHECKING

from mergerisk.errors import UserError, did_you_mean
from mergerisk.tasks.arrays import Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Classes:
    """A classifier's classes by name or number.

    Attributes:
        names: one per class; None if it names none.
        count: number of classes.
    """

    def __init__(self, names: Sequence[str] | None, count: int) -> None:
        self.names = None if names is None else list(names)
        self.count = count
        known: dict[str, set[int]] = defaultdict(set)
        for index, name in enumerate(self.names or ()):
            # ImageNet's have several: "tench, Tinca tinca".
            for alias in {_plain(name), *map(_plain, name.split(","))}:
                known[alias].add(index)
        self._indices = {alias: found.pop() for alias, found in known.items() if len(found) == 1}

    def index(self, text: str, where: str) -> int:
        """The class called ``text``: exactly so, in letters of either case, by one of its aliases, or by number.

        Args:
            text: what a person calls it.
            where: what to begin an error with.

        Raises:
            UserError: there is none, or the number is out of range.
        """
        text = text.strip()
        names = self.names or []
        if text in names:
            return names.index(text)
        if _plain(text) in self._indices:
            return self._indices[_plain(text)]
        if text.isascii() and text.isdigit():
            if int(text) < self.count:
                return int(text)
            raise UserError(f"{where}: class {text} is out of range; the model has classes 0 to {self.count - 1}")
        if not names:
            last = self.count - 1
            raise UserError(f"{where}: no class {text!r}; the model names none, so write numbers, 0 to {last}")
        raise UserError(f"{where}: the model has no class {text!r}{did_you_mean(text, names)}")


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def label_by_folder(names: Sequence[str], classes: Classes) -> tuple[dict[str, int], list[Skipped]]:
    """Labels by name of the file, from the outermost folder it is in.

    Raises:
        UserError: a folder is called like no class.
    """
    labels, skipped = {}, []
    for name in names:
        folder, inside, _ = name.partition("/")
        if inside:
            labels[name] = folder
        else:
            skipped.append(Skipped(name, "beside the class folders"))
    indices = {folder: classes.index(folder, f"folder {folder!r}") for folder in sorted(set(labels.values()))}
    return {name: indices[folder] for name, folder in labels.items()}, skipped


def label_by_table(table: Path, names: Sequence[str], classes: Classes) -> tuple[dict[str, int], list[Skipped]]:
    """Labels by name of the file, from a CSV table with the columns ``file`` and ``label``.

    Raises:
        UserError: the table cannot be read, lacks a column, or names a file twice, one that is not there, or a
            class that is none.
    """
    labels: dict[str, int] = {}
    there = set(names)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = {"file", "label"} - set(rows.fieldnames or ())
            if missing:
                raise UserError(f"{table}: no column {min(missing)!r}; its first line must be: file,label")
            for row in rows:
                where = f"{table}, line {rows.line_num}"
                name = (row["file"] or "").strip().removeprefix("./")
                if name not in there:
                    raise UserError(f"{where}: no file {name!r} among the images{did_you_mean(name, names)}")
                if name in labels:
                    raise UserError(f"{where}: {name!r} is given twice")
                labels[name] = classes.index(row["label"] or "", where)
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a CSV table in UTF-8: {error}") from error
    return labels, [Skipped(name, f"not in {table.name}") for name in names if name not in labels]


def read_labels(
    images: Path, names: Sequence[str], table: Path | None, classes: Classes
) -> tuple[dict[str, int] | None, list[Skipped]]:
    """Labels by name of the file, from the table if there is one, else from class folders; and the files without.

    Returns:
        None for the labels where nothing tells them.

    Raises:
        UserError: see :func:`label_by_table` and :func:`label_by_folder`.
    """
    if table is not None:
        return label_by_table(table, names, classes)
    if has_class_folders(images):
        return label_by_folder(names, classes)
    return None, []


def has_class_folders(images: Path) -> bool:
    """Whether the folder of each image says what it shows."""
    return any(path.is_dir() and not path.name.startswith(".") for path in images.iterdir())
