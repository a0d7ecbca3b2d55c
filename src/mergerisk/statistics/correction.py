"""p-values of a family of tests, corrected for their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import false_discovery_control

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PValueCorrection = Literal["holm", "bh"]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values that bound the chance of any false finding (Holm 1979), under any dependence.

    Args:
        p_values: one per test; NaN for a test that could not be made, which then does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values that bound the expected share of false findings (Benjamini and Hochberg 1995), for tests
    that are independent or positively dependent. NaN as in :func:`holm`."""
    p = np.asarray(p_values, dtype=np.float64)
    known = ~np.isnan(p)
    adjusted = np.full(p.shape, np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
    return adjusted


def correct(p_values: ArrayLike, method: PValueCorrection) -> NDArray[np.float64]:
    """:func:`holm` or :func:`benjamini_hochberg`, by name."""
    return holm(p_values) if method == "holm" else benjamini_hochberg(p_values)
