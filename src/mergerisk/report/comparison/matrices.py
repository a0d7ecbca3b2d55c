"""Outcomes of one task and seed as matrices, settings × images, for those settings that are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.transfer import what_happened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SETTING = ["attack", "surrogate", "target", "epsilon"]


@dataclass(frozen=True, eq=False)
class Matrices:
    """What happened, one row per setting and one column per image.

    Attributes:
        settings: attack, surrogate, target and budget of each row.
        images: indices in the task, ascending.
        labels: of the images.
        counts: surrogate and target are right when clean.
        target_fooled: and the target is wrong under attack.
        surrogate_fooled: and the surrogate is.
    """

    settings: pd.MultiIndex
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    counts: NDArray[np.bool_]
    target_fooled: NDArray[np.bool_]
    surrogate_fooled: NDArray[np.bool_]

    def of(self, settings: pd.MultiIndex, images: NDArray[np.int64]) -> Matrices:
        """The same for some of the settings and images, in the order asked for; all must be there."""
        rows = self.settings.get_indexer(settings)
        columns = np.searchsorted(self.images, images)
        cut = np.ix_(rows, columns)
        parts = (part[cut] for part in (self.counts, self.target_fooled, self.surrogate_fooled))
        return Matrices(settings, images, self.labels[columns], *parts)


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, int], Matrices]]:
    """By (task, seed), in order of appearance. A setting that lacks an image does not count it."""
    for (task, seed), frame in outcomes.groupby(["task", "seed"], sort=False, observed=True):
        # budgets are rounded, so that one written as a fraction equals one written as a decimal
        keys = frame[SETTING].assign(epsilon=frame["epsilon"].round(9))
        codes = keys.groupby(SETTING, sort=False, observed=True).ngroup().to_numpy()
        first = np.unique(codes, return_index=True)[1]
        settings = pd.MultiIndex.from_frame(keys.iloc[first].astype(dict.fromkeys(SETTING[:3], object)))
        images, columns = np.unique(frame["image"].to_numpy(), return_inverse=True)
        labels = np.zeros(len(images), dtype=np.int64)
        labels[columns] = frame["label"].to_numpy()
        happened = what_happened(frame)
        parts = []
        for which in (happened.counts, happened.fooled, happened.surrogate_fooled):
            part = np.zeros((len(settings), len(images)), dtype=bool)
            part[codes, columns] = which
            parts.append(part)
        yield (str(task), int(str(seed))), Matrices(settings, images, labels, *parts)
