"""Measures of a run's diagnostics as what claims are judged on: beside outcomes, and as means of settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from mergerisk.statistics.explaining.beside import PAIR, columns_of, per_pair, with_text_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd
    from numpy.typing import NDArray

Per = Literal["image", "pair"]
"""Whether a measure has a value per image, or one per pair of models."""


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What a run with ``causes`` measured of surrogates and targets.

    Attributes:
        causes: its ``causes.parquet``.
        pair_causes: its ``pair_causes.parquet``.
    """

    causes: pd.DataFrame
    pair_causes: pd.DataFrame | None = None

    @cached_property
    def _of_pairs(self) -> tuple[pd.DataFrame | None, Mapping[str, Per]]:
        if self.pair_causes is None or not len(self.pair_causes):
            return None, {}
        wide, measures = per_pair(self.pair_causes)
        return wide, {measure.name: measure.per for measure in measures}

    @property
    def measures(self) -> Mapping[str, Per]:
        """Every measure that can be claimed of, and what it has a value per."""
        return {**dict.fromkeys(columns_of(self.causes), "image"), **self._of_pairs[1]}

    def beside(self, outcomes: pd.DataFrame, names: Collection[str]) -> dict[str, NDArray[np.float64]]:
        """Per outcome the values of some measures, NaN where there is none."""
        measures, keys = self.measures, [*PAIR, "image"]
        rows = with_text_names(outcomes[keys])
        of_images = [name for name in names if measures[name] == "image"]
        found = rows.merge(with_text_names(self.causes)[[*keys, *of_images]], "left", keys, validate="m:1")
        of_pairs = [name for name in names if measures[name] == "pair"]
        wide, _ = self._of_pairs
        if of_pairs and wide is not None:
            found = found.merge(wide[[*PAIR, *of_pairs]], "left", PAIR, validate="m:1")
        return {name: found[name].to_numpy(np.float64) for name in names}


def means_of_settings(
    values: NDArray[np.float64], counts: NDArray[np.bool_], setting_of: NDArray[np.intp], settings: int
) -> NDArray[np.float64]:
    """Per setting the mean of a measure over the images that count and have a value; NaN of none."""
    known = counts & ~np.isnan(values)
    sums = np.bincount(setting_of[known], values[known], minlength=settings)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.bincount(setting_of[known], minlength=settings), dtype=np.float64)
