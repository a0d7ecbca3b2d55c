"""Labels that are numbers: what classes they stand for, and which of these no image shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.tasks.arrays import TEST, TRAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHOWN = 3
"""Classes named in one message."""


def numbered(labels: NDArray[np.int64]) -> tuple[tuple[str, ...], int]:
    """Names of classes that are known by number only, and the number that is label 0.

    Labels that are exactly 1, 2, …, K count from 1, as they do in data sets that were made in MATLAB: K classes,
    none of which is empty.
    """
    present = np.unique(labels)
    first = int(len(present) > 1 and present[0] == 1 and present[-1] == len(present))
    return tuple(map(str, range(first, int(present[-1]) + 1))), first


def numbered_remark(names: Sequence[str], first: int) -> tuple[str, ...]:
    """What must be said where labels do not count from 0."""
    if not first:
        return ()
    return (
        f"labels are {names[0]} to {names[-1]}, none is 0: they were taken to count {len(names)} classes from 1",
    )


def empty_remarks(names: Sequence[str], labels: NDArray[np.int64], split: NDArray[np.int64]) -> tuple[str, ...]:
    """What must be said of classes that no image shows: a model can answer such a class, and is never right.

    Args:
        names: one per class.
        labels: one per image.
        split: one code per image.
    """
    every = set(range(len(names)))
    without = {"": every - set(labels.tolist())}
    for name, code in (("training ", TRAIN), ("test ", TEST)):
        if (split == code).any():
            without[name] = every - set(labels[split == code].tolist()) - without[""]
    found = []
    for which, empty in without.items():
        if empty:
            shown = ", ".join(repr(names[label]) for label in sorted(empty)[:_SHOWN])
            more = ", …" if len(empty) > _SHOWN else ""
            have = "has" if len(empty) == 1 else "have"
            found.append(f"{len(empty)} of {len(names)} classes {have} no {which}image: {shown}{more}")
    return tuple(found)
