"""What pictures of measures show: a task's images on a method, each a point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.statistics.curves import crossings
from mergerisk.statistics.explaining.explained import Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.statistics.explaining.beside import Beside

_OF = ["surrogate", "task", "target"]


def points_of(found: Beside) -> dict[str, tuple[Point, ...]]:
    """Measure → points of every surrogate, task and target, without those of which there is no value."""
    rows = found.rows
    rates = (
        rows.groupby([*_OF, "attack", "epsilon"], sort=False)["fooled"]
        .mean()
        .unstack("epsilon")
        .sort_index(axis=1)
    )
    half = {
        tuple(map(str, key)): _middle(crossings(own.to_numpy(float), own.columns.to_numpy(float)).tolist())
        for key, own in rates.dropna().groupby(_OF, sort=False)
    }
    once = found.clipped(rows).drop_duplicates([*_OF, "image"])
    grouped = once.groupby(_OF, sort=False)
    counts, means = grouped.size(), grouped[[measure.name for measure in found.measures]].mean()
    return {
        measure.name: tuple(
            Point(surrogate, task, target, float(value), half[surrogate, task, target], int(count))
            for (surrogate, task, target), value, count in zip(
                means.index, means[measure.name].to_numpy(float), counts.to_numpy(), strict=True
            )
            if (surrogate, task, target) in half and math.isfinite(value)
        )
        for measure in found.measures
    }


def _middle(values: Sequence[float]) -> float:
    """The median; of two middle values of which one is not measured the lower one, which errs on the side of
    risk."""
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(np.mean([low, high])) if low > 0 and math.isfinite(high) else low
