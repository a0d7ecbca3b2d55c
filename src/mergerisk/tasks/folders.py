"""Folders of images: one folder per class, perhaps within ``train/`` and ``test/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN, Skipped
from mergerisk.tasks.decoding import find_files
from mergerisk.tasks.listing import UNSPLIT, Listing, known_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SPLITS = {
    "train": TRAIN,
    "test": TEST,
    "val": CALIBRATION,
    "validation": CALIBRATION,
    "calibration": CALIBRATION,
}
"""What folders of splits are called, in letters of either case."""

_HINT = "make one folder of images per class, in it or in its train/ and test/"


def list_folder(folder: Path, wanted: Sequence[str] | None = None) -> Listing:
    """The images in a folder of class folders; where these lie within ``train/`` and ``test/``, split so.

    A further ``val/``, ``validation/`` or ``calibration/`` holds calibration images. Files are not looked into.

    Args:
        folder: the folder.
        wanted: names of the only classes that matter.

    Raises:
        UserError: no such folder; no files or no class folders in it; fewer than two classes; a class without
            images, or in one of training and test only.
    """
    files = find_files(folder)
    if not files:
        raise UserError(f"{folder}: the folder holds no files; {_HINT}")
    groups = _groups(folder)
    classes = {inside: _class_folders(folder / inside) for inside in groups}
    if wanted is not None:
        every = sorted({name for names in classes.values() for name in names})
        for name in wanted:
            known_class(name, every, str(folder))
        classes = {inside: [name for name in names if name in wanted] for inside, names in classes.items()}
    names = _class_names(folder, groups, classes)
    numbers = {name: label for label, name in enumerate(names)}

    labels: list[int] = []
    split: list[int] = []
    listed: list[str] = []
    skipped = []
    for file in files:
        inside = "" if "" in groups else file.partition("/")[0]
        label, within, _ = file.removeprefix(f"{inside}/" if inside else "").partition("/")
        if inside not in groups or not within:
            skipped.append(Skipped(file, "beside the class folders"))
        elif label in numbers:
            listed.append(file)
            labels.append(numbers[label])
            split.append(groups[inside])
    found = {(code, label) for code, label in zip(split, labels, strict=True)}
    for inside, code in groups.items():
        empty = [name for name in classes[inside] if (code, numbers[name]) not in found]
        if empty and code != CALIBRATION:
            raise UserError(f"{folder / inside}: class {empty[0]!r} has no images; remove its folder, or fill it")

    def read(positions: NDArray[np.int64]) -> Iterator[Path]:
        return (folder / listed[position] for position in positions.tolist())

    return Listing(
        str(folder), names, np.array(labels, np.int64), np.array(split, np.int64), listed.__getitem__, read,
        tuple(skipped),
    )  # fmt: skip


def _subfolders(folder: Path) -> list[str]:
    # __MACOSX is what archives packed there leave behind.
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not name.startswith((".", "__MACOSX")))


def _groups(folder: Path) -> dict[str, int]:
    """Folder of a split → its code; the folder itself if it has none."""
    inside = _subfolders(folder)
    if not inside:
        raise UserError(f"{folder}: images, but no class folders; {_HINT}")
    codes = {name: _SPLITS[name.casefold()] for name in inside if name.casefold() in _SPLITS}
    others = [name for name in inside if name not in codes]
    found = set(codes.values())
    if not codes or (others and not {TRAIN, TEST} <= found):
        return {"": UNSPLIT}
    if others:
        raise UserError(f"{folder}: folder {others[0]!r} stands beside train/ and test/; move it away")
    if TEST not in found:
        raise UserError(
            f"{folder}: no test/ beside {next(iter(codes))}/; add it, or give a folder of class folders"
        )
    if len(found) < len(codes):
        raise UserError(f"{folder}: two folders of one split among {', '.join(codes)}; keep one")
    return codes


def _class_folders(folder: Path) -> list[str]:
    names = _subfolders(folder)
    if not names:
        raise UserError(f"{folder}: no class folders; {_HINT}")
    return names


def _class_names(folder: Path, groups: dict[str, int], classes: dict[str, list[str]]) -> tuple[str, ...]:
    by_code = {code: (inside, set(classes[inside])) for inside, code in groups.items()}
    deciding = [by_code[code] for code in (TRAIN, TEST, UNSPLIT) if code in by_code]
    for inside, names in by_code.values():
        for other, others in deciding:
            stray = sorted(names - others)
            if stray:
                raise UserError(
                    f"{folder}: class {stray[0]!r} is in {inside}/, not in {other}/; both need the same classes"
                )
    return tuple(sorted(deciding[0][1]))
