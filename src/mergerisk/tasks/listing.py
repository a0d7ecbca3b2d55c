"""Labelled images before any is decoded: which there are, and which of them a task takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.seeds import derive_seed
from mergerisk.tasks.arrays import CALIBRATION, TEST, TRAIN
from mergerisk.tasks.class_names import Classes
from mergerisk.tasks.numbering import empty_remarks
from mergerisk.tasks.splits import UNSPLIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from mergerisk.tasks.arrays import Skipped
    from mergerisk.tasks.decoding import Encoded
    from mergerisk.tasks.options import FileOptions

SPLITS = {"train": TRAIN, "test": TEST, "calibration": CALIBRATION}


@dataclass(frozen=True)
class Listing:
    """Labelled images that can be read.

    Attributes:
        where: what messages begin with.
        class_names: one per label.
        labels: int64, N.
        split: N codes, of which some may be ``UNSPLIT``.
        name: position → what the image is called.
        read: rising positions → the encoded images, in that order; None where there is none.
        skipped: files that belong to no class.
        remarks: what must be said of classes and splits, in sentences.
        trained_on: a split that others train on, and that test images are drawn from; empty for none.
    """

    where: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    split: NDArray[np.int64]
    name: Callable[[int], str]
    read: Callable[[NDArray[np.int64]], Iterator[Encoded | None]]
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()
    trained_on: str = ""


@dataclass(frozen=True)
class Chosen:
    """What a task takes of a listing.

    Attributes:
        listing: of what.
        class_names: one per label.
        positions: in the listing; rising.
        labels: one per position.
        split: one code per position: 0 train, 1 test, 2 calibration.
        whole: labels of which every image is taken.
        remarks: what must be said of classes and splits, in sentences.
    """

    listing: Listing
    class_names: tuple[str, ...]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    split: NDArray[np.int64]
    whole: frozenset[int] = field(default_factory=frozenset)
    remarks: tuple[str, ...] = ()

    def read(self) -> Iterator[tuple[str, Encoded | None]]:
        """Names and encoded images, in order."""
        names = map(self.listing.name, self.positions.tolist())
        return zip(names, self.listing.read(self.positions), strict=True)


def choose(listing: Listing, options: FileOptions, test_share: float | None = None) -> Chosen:
    """Which images a task takes, and what for: by (options, names and labels), nothing else.

    Classes are kept, unsplit images divided into test and training, calibration images held out of the training
    split where nobody brought any, and each split limited, in this order.

    Args:
        listing: what there is.
        options: what is wanted.
        test_share: of each class's unsplit images.

    Raises:
        UserError: an unknown class, a class that is asked for without images, or no test images.
    """
    labels, kept = listing.labels, np.arange(len(listing.labels))
    names = listing.class_names
    if options.classes is not None:
        known = Classes(names, len(names), "the task")
        wanted = [known.index(name, listing.where) for name in options.classes]
        if len(set(wanted)) < len(wanted):
            twice = next(names[label] for label in wanted if wanted.count(label) > 1)
            raise UserError(f"{listing.where}: classes: {twice!r} is named twice; name each class once")
        names = tuple(names[label] for label in wanted)
        new = {label: place for place, label in enumerate(wanted)}
        table = np.array([new.get(label, -1) for label in range(known.count)], dtype=np.int64)
        labels = table[labels]
        kept = np.flatnonzero(labels >= 0)
        empty = set(range(len(names))) - set(np.unique(labels).tolist())
        if empty:
            raise UserError(f"{listing.where}: class {names[min(empty)]!r} has no images")
    if len(names) < 2:
        raise UserError(f"{listing.where}: one class only, {', '.join(names)}; classification needs at least two")
    split = listing.split[kept].copy()
    labels = labels[kept]
    if test_share is not None:
        unsplit = np.flatnonzero(split == UNSPLIT)
        split[unsplit] = TRAIN
        called = [listing.name(position) for position in kept[unsplit].tolist()]
        split[unsplit[_test_share(called, labels[unsplit], test_share, options.seed)]] = TEST
    remarks = (*listing.remarks, *empty_remarks(names, labels, split))
    _hold_out(labels, split, options)
    taken = _limited(labels, split, options)
    counts = np.bincount(labels, minlength=len(names)), np.bincount(labels[taken], minlength=len(names))
    whole = frozenset(np.flatnonzero((counts[0] == counts[1]) & (counts[0] > 0)).tolist())
    if not (split[taken] == TEST).any():
        raise UserError(f"{listing.where}: there are no test images")
    return Chosen(listing, names, kept[taken], labels[taken], split[taken], whole, remarks)


def _test_share(names: Sequence[str], labels: NDArray[np.int64], share: float, seed: int) -> list[int]:
    """Positions of test images: of each class a share, rounded, but one at least."""
    members = defaultdict(list)
    for position, label in enumerate(labels.tolist()):
        members[label].append(position)
    # By (seed, name), so that a further image moves few of the others.
    order = {position: derive_seed(seed, "test share", name) for position, name in enumerate(names)}
    found: list[int] = []
    for positions in members.values():
        shuffled = sorted(positions, key=order.__getitem__)
        found += shuffled[: max(1, round(share * len(shuffled)))]
    return found


def _hold_out(labels: NDArray[np.int64], split: NDArray[np.int64], options: FileOptions) -> None:
    """Turn training images into calibration images where there are none and some are wanted."""
    wanted = options.limit.calibration
    if (split == CALIBRATION).any() or wanted == 0:
        return
    import torch

    from mergerisk.tasks.from_arrays import HELD_OUT, hold_out

    training = np.flatnonzero(split == TRAIN)
    held_out, _ = hold_out(
        torch.from_numpy(labels[training]), options.seed, HELD_OUT if wanted is None else wanted
    )
    split[training[held_out.numpy()]] = CALIBRATION


def _limited(labels: NDArray[np.int64], split: NDArray[np.int64], options: FileOptions) -> NDArray[np.int64]:
    """Rising positions of what the limits leave."""
    import torch

    from mergerisk.randomness import generator
    from mergerisk.tasks.task import select_balanced

    taken = []
    for name, code in SPLITS.items():
        members = np.flatnonzero(split == code)
        limit = getattr(options.limit, name)
        if limit is not None:
            draws = generator(options.seed, "limit", name)
            members = members[select_balanced(torch.from_numpy(labels[members]), limit, draws).numpy()]
        taken.append(members)
    return np.sort(np.concatenate(taken))
