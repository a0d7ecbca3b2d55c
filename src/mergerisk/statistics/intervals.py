"""Intervals for single rates, and for ratios of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, *, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval for binomial rates (Wilson 1927; Brown, Cai and DasGupta 2001, equation 4).

    Args:
        successes: counts, any shape.
        trials: counts, at least ``successes``.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        Lower and upper ends, in [0, 1]; NaN where there are no trials.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (k + z2 / 2) / (n + z2)
        half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / n + z2 / 4)
    # At 0 and n the ends are exactly 0 and 1; rounding must not say otherwise.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    empty = n == 0
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def paired_ratio_interval(
    both: ArrayLike, only_first: ArrayLike, only_second: ArrayLike, *, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bonett and Price's hybrid Wilson interval for the ratio of two rates on the same items (Bonett and Price
    2006, "Confidence intervals for a ratio of binomial proportions based on paired data"; recommended by
    Fagerland, Lydersen and Laake 2014).

    Args:
        both: counts of items on which both happened, any shape.
        only_first: on which only the first did, the ratio's numerator.
        only_second: on which only the second did.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        Lower and upper ends, at least 0; NaN where neither happened on any item.
    """
    given = np.broadcast_arrays(both, only_first, only_second)
    a, b, c = (np.asarray(counts, dtype=np.float64) for counts in given)
    first, second, items = a + b, a + c, a + b + c
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = np.sqrt((b + c + 2) / ((first + 1) * (second + 1)))
        own = [np.sqrt((1 - (k + 1) / (items + 2)) / (k + 1)) for k in (first, second)]
        z = float(ndtri(0.5 + confidence / 2)) * joint / (own[0] + own[1])
        ends = []
        for k in (first, second):
            half = z * np.sqrt(z**2 + 4 * k * (1 - k / items))
            ends.append([(2 * k + z**2 + sign * half) / (2 * (items + z**2)) for sign in (-1, 1)])
        low, high = ends[0][0] / ends[1][1], ends[0][1] / ends[1][0]
    empty = items == 0
    return np.where(empty, np.nan, np.maximum(low, 0.0)), np.where(empty, np.nan, high)
