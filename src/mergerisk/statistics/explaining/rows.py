"""The table that explanations start from, and its images as what is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.errors import UserError, did_you_mean
from mergerisk.seeds import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLOCK = ("task", "attack", "epsilon")
"""What never is compared across."""

_GROUPS = 20
"""Groups of a task's images that a jackknife leaves out one at a time."""


def complete(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows in which none of the columns is missing.

    Raises:
        UserError: the table lacks a column.
    """
    for name in (*BLOCK, "target", "image", *columns):
        if name not in table:
            raise UserError(f"the table has no column {name!r}{did_you_mean(name, map(str, table.columns))}")
    return table.dropna(subset=list(columns)).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Left:
    """What a delete-a-group jackknife over images, task by task, leaves out.

    Attributes:
        tasks: code of each row's task.
        groups: of each row's image: all rows of an image are in one.
        counts: how many groups each task has.
    """

    tasks: NDArray[np.intp]
    groups: NDArray[np.intp]
    counts: NDArray[np.intp]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the errors."""
        return int((self.counts - 1).sum())

    def error(self, without: NDArray[np.float64]) -> float:
        """The standard error of a statistic, given its values without each group: tasks × groups, NaN where a task
        has fewer."""
        total = 0.0
        for values, count in zip(without, self.counts, strict=True):
            own = values[:count]
            total += float((count - 1) / count * ((own - own.mean()) ** 2).sum()) if count > 1 else 0.0
        return float(np.sqrt(total))


def left_out(rows: pd.DataFrame, seed: int, groups: int = _GROUPS) -> Left:
    """Images dealt at random into as equal groups as can be, in each task."""
    tasks, names = pd.factorize(rows["task"])
    found = np.zeros(len(rows), dtype=np.intp)
    counts = np.zeros(len(names), dtype=np.intp)
    for code, name in enumerate(names):
        own = np.flatnonzero(tasks == code)
        images, unique = pd.factorize(rows["image"].to_numpy()[own])
        counts[code] = min(groups, len(unique))
        dealt = numpy_generator(seed, "explaining", str(name)).permutation(len(unique)) % counts[code]
        found[own] = dealt[images]
    return Left(np.asarray(tasks, dtype=np.intp), found, counts)


def codes_of(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[NDArray[np.intp], int]:
    """A number from 0 for each combination of the columns, and how many there are."""
    found = rows.groupby(list(columns), sort=False, observed=True).ngroup()
    codes = np.asarray(found.to_numpy(), dtype=np.intp)
    return codes, int(codes.max()) + 1 if len(codes) else 0
