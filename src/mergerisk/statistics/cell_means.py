"""From one row per setting to a matrix of units × treatments, for rates and for resampled rates alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

MEASURES = ("asr", "relative_asr", "delta_asr", "surrogate_asr", "clean_accuracy")
"""What is measured of a setting; the first four also with ``_all``. Whatever else a claim names is a measure of a
diagnostic."""


def is_diagnostic(measure: str) -> bool:
    """Whether a measure is a diagnostic's: what a run with ``causes`` measured of a surrogate and a target."""
    return measure.removesuffix("_all") not in MEASURES


@dataclass(frozen=True, eq=False)
class Design:
    """Which settings are averaged into which cell of a matrix.

    Attributes:
        rows: positions in the table of rates, those of one cell beside each other.
        starts: where in ``rows`` each cell begins.
        cells: per cell, unit × number of treatments + treatment.
        units: what a row of the matrix stands for: one row of names each.
        treatments: names of the matrix's columns.
    """

    rows: NDArray[np.intp]
    starts: NDArray[np.intp]
    cells: NDArray[np.intp]
    units: pd.DataFrame
    treatments: tuple[str, ...]

    @property
    def tasks(self) -> NDArray[Any]:
        """The task of every unit."""
        return self.units["task"].to_numpy(dtype=object)

    def matrix(
        self, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Means of cells; those without a known value are NaN.

        Args:
            values: … × settings.
            weights: of the settings, in a shape that broadcasts with ``values``; equal by default.

        Returns:
            … × units × treatments.
        """
        shape = (*values.shape[:-1], len(self.units), len(self.treatments))
        filled = np.full((*shape[:-2], shape[-2] * shape[-1]), np.nan)
        if len(self.rows):
            taken = values[..., self.rows]
            if len(self.cells) == len(self.rows):  # one setting a cell: nothing to average
                drawn = None if weights is None else np.broadcast_to(weights, values.shape)[..., self.rows] > 0
                filled[..., self.cells] = taken if drawn is None else np.where(drawn, taken, np.nan)
                return filled.reshape(shape)
            if weights is None and not np.isnan(np.min(taken)):
                sizes = np.diff(np.append(self.starts, len(self.rows)))
                filled[..., self.cells] = np.add.reduceat(taken, self.starts, axis=-1) / sizes
                return filled.reshape(shape)
            known = ~np.isnan(taken)
            weight = known.astype(np.float64)
            if weights is not None:
                weight *= weights[..., self.rows]
            sums = np.add.reduceat(np.where(known, taken, 0.0) * weight, self.starts, axis=-1)
            with np.errstate(invalid="ignore", divide="ignore"):
                filled[..., self.cells] = sums / np.add.reduceat(weight, self.starts, axis=-1)
        return filled.reshape(shape)

    def medians(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lower medians of cells, for values of which some are infinite: units × treatments."""
        filled = np.full(len(self.units) * len(self.treatments), np.nan)
        ends = np.append(self.starts[1:], len(self.rows))[: len(self.starts)]
        for cell, start, end in zip(self.cells, self.starts, ends, strict=True):
            known = values[self.rows[start:end]]
            known = np.sort(known[~np.isnan(known)])
            if len(known):
                filled[cell] = known[(len(known) - 1) // 2]
        return filled.reshape(len(self.units), len(self.treatments))

    def select(self, units: NDArray[np.intp]) -> Design:
        """The same with some of the units only."""
        k = len(self.treatments)
        place = np.full(len(self.units), -1)
        place[units] = np.arange(len(units))
        sizes = np.diff(np.append(self.starts, len(self.rows)))
        kept = place[self.cells // k] >= 0
        cells = place[self.cells[kept] // k] * k + self.cells[kept] % k
        rows = self.rows[np.repeat(kept, sizes)]
        starts = np.cumsum(np.append(0, sizes[kept]))[:-1]
        return Design(rows, starts, cells, self.units.iloc[units].reset_index(drop=True), self.treatments)


def make_design(
    table: pd.DataFrame, units: Sequence[str], treatment: NDArray[np.intp], treatments: Sequence[str]
) -> Design:
    """Average the settings of every unit and treatment.

    Args:
        table: some rows of the table of rates, its index saying which.
        units: columns that name a unit; ``task`` among them.
        treatment: per row, the position of its treatment; −1 for a row that belongs to none.
        treatments: their names.
    """
    used = table[treatment >= 0]
    groups = used.groupby(list(units), sort=True, observed=True, dropna=False)
    names = groups.size().index.to_frame(index=False)
    cell = groups.ngroup().to_numpy() * len(treatments) + treatment[treatment >= 0]
    order = np.argsort(cell, kind="stable")
    cells, starts = np.unique(cell[order], return_index=True)
    return Design(used.index.to_numpy()[order], starts, cells, names, tuple(treatments))
