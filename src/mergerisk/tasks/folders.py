"""Folders of images: one folder per class, perhaps within folders of splits."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN, Skipped
from mergerisk.tasks.class_names import Classes, one_form, ordered
from mergerisk.tasks.decoding import find_files
from mergerisk.tasks.listing import Listing
from mergerisk.tasks.splits import UNSPLIT, divide, is_plain, kinds_of, undivided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mergerisk.tasks.options import FolderOptions
    from mergerisk.tasks.splits import Division

_HINT = "make one folder of images per class, in it or in its train/ and test/"

_ALIKE = 2
"""Folders of one name in all of several, by which these are no classes: cat/ and dog/ in day/ and in night/."""


def list_folder(folder: Path, options: FolderOptions) -> Listing:
    """The images in a folder of class folders; where these lie within folders of splits, split so.

    Files are not looked into.

    Args:
        folder: the folder.
        options: the only classes that matter, and the splits.

    Raises:
        UserError: no such folder; no files or no class folders in it; fewer than two classes; a class without
            images, or in one of training and test only; folders that seem to be splits, and no word which.
    """
    files = find_files(folder)
    if not files:
        raise UserError(f"{folder}: the folder holds no files; {_HINT}")
    division = _division(folder, files, options)
    groups = division.codes
    classes = {inside: _class_folders(folder / inside) for inside in groups}
    if options.classes is not None:
        every = ordered(name for names in classes.values() for name in names)
        known = Classes(every, len(every), "the folder")
        wanted = {every[known.index(name, str(folder))] for name in options.classes}
        classes = {inside: [name for name in names if name in wanted] for inside, names in classes.items()}
    names = _class_names(folder, groups, classes)
    numbers = {name: label for label, name in enumerate(names)}

    labels: list[int] = []
    split: list[int] = []
    listed: list[str] = []
    skipped = []
    for file in files:
        top, below, _ = file.partition("/")
        inside = "" if "" in groups else top
        if below and inside not in groups:
            continue  # of a split that is not used
        label, within, _ = file.removeprefix(f"{inside}/" if inside else "").partition("/")
        label = one_form(label)
        if not below or not within:
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
        tuple(skipped), division.remarks, division.trained_on,
    )  # fmt: skip


def _subfolders(folder: Path) -> list[str]:
    # __MACOSX is what archives packed there leave behind.
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not name.startswith((".", "__MACOSX")))


def _division(folder: Path, files: Sequence[str], options: FolderOptions) -> Division:
    """What the folders in a folder are: splits, by their names and what is in them, or classes."""
    inside = _subfolders(folder)
    if not inside:
        raise UserError(f"{folder}: images, but no class folders; {_HINT}")
    if options.train_split or options.test_split or options.calibration_split:
        return divide(inside, options, str(folder), spare=True)
    within: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        top, *deeper = file.split("/", 2)
        if len(deeper) == 2:
            within[top].add(deeper[0])
    kinds = kinds_of(inside)
    # Classes may be called train or bullet_train: what holds no folders needs the plain word, and a test/ too.
    splits = [name for name in inside if kinds[name] and (within[name] or is_plain(name))]
    others = [name for name in inside if name not in splits]
    both = {"train", "test"} <= {kinds[name] for name in splits}
    if splits and (both or not others):
        division = divide(splits, options, str(folder), spare=True)
        unused = [*others, *(name for name in splits if name not in division.codes)]
        if unused:
            beside = " and ".join(f"{name}/" for name, code in division.codes.items() if code in {TRAIN, TEST})
            raise UserError(f"{folder}: folder {unused[0]!r} stands beside {beside}; move it away")
        return division
    if options.classes is None:  # who names them says that they are classes
        _refuse_what_seems_split(folder, inside, within)
    return undivided(folder.resolve().name)


def _refuse_what_seems_split(folder: Path, inside: Sequence[str], within: Mapping[str, set[str]]) -> None:
    """Raises:
    UserError: the folders hold the same folders, as splits or configurations do, and classes do not.
    """
    nested = [name for name in inside if within.get(name)]
    common = set.intersection(*(within[name] for name in nested)) if len(nested) > 1 else set()
    if len(common) < _ALIKE:
        return
    first, second = ordered(common)[:_ALIKE]
    shown = f"{', '.join(nested[:3])}{', …' if nested[3:] else ''}"
    if any(kinds_of(common).values()):
        what, todo = "the splits of each class", "put the splits outermost"
    else:
        what = "splits or configurations, not classes"
        todo = f"say test_split and train_split, or give one of them, as {folder / nested[0]}"
    raise UserError(
        f"{folder}: {shown} all hold folders {first!r} and {second!r}: they seem to be {what}; {todo}; if they "
        "are classes, name them under classes"
    )


def _class_folders(folder: Path) -> list[str]:
    names = _subfolders(folder)
    if not names:
        raise UserError(f"{folder}: no class folders; {_HINT}")
    return [*ordered(names)]


def _class_names(folder: Path, groups: Mapping[str, int], classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    by_code = {code: (inside, set(classes[inside])) for inside, code in groups.items()}
    deciding = [by_code[code] for code in (TRAIN, TEST, UNSPLIT) if code in by_code]
    for inside, names in by_code.values():
        for other, others in deciding:
            stray = ordered(names - others)
            if stray:
                raise UserError(
                    f"{folder}: class {stray[0]!r} is in {inside}/, not in {other}/; both need the same classes"
                )
    return ordered(deciding[0][1])
