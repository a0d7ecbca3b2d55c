"""Intervals for single rates, for ratios of two, and for means."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy.special import ndtri, stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Estimate: TypeAlias = "tuple[ArrayLike, ArrayLike, ArrayLike]"
"""Rates with the lower and upper ends of their intervals, one of each per stratum."""


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


def mean_ratio_interval(first: Estimate, second: Estimate, correlation: ArrayLike) -> tuple[float, float]:
    """The interval of a ratio of two means over strata, recovered from the intervals of their rates (MOVER for
    ratios: Donner and Zou 2012, "Closed-form confidence intervals for functions of the normal mean and standard
    deviation", equation 9, for dependent rates; Fieller's where those are symmetric).

    It holds the ratios R for which the interval of Σ first − R Σ second, by the method for sums (Zou and Donner
    2008), has 0 in it. Strata are independent, the two rates of one stratum as correlated as stated.

    Args:
        first: of the numerator; strata in any number, at least one, no NaN.
        second: of the denominator.
        correlation: of the two estimates of each stratum, in [−1, 1].

    Returns:
        Lower end, at least 0, and upper end, infinite where the denominator may be 0; both NaN where its estimate
        is 0.
    """
    (a, a_low, a_high), (b, b_low, b_high) = (
        [np.atleast_1d(np.asarray(part, dtype=np.float64)) for part in given] for given in (first, second)
    )
    if b.sum() == 0:
        return np.nan, np.nan
    rho = np.asarray(correlation, dtype=np.float64)
    squared, middle, constant = _quadratic(a, a - a_low, b, b_high - b, rho)
    largest = middle + np.sqrt(max(middle**2 - squared * constant, 0.0))
    low = max(constant / largest, 0.0) if largest > 0 else 0.0
    squared, middle, constant = _quadratic(a, a_high - a, b, b - b_low, rho)
    largest = middle + np.sqrt(max(middle**2 - squared * constant, 0.0))
    return float(low), float(largest / squared) if squared > 0 else np.inf


def _quadratic(
    a: NDArray[np.float64],
    a_reach: NDArray[np.float64],
    b: NDArray[np.float64],
    b_reach: NDArray[np.float64],
    correlation: NDArray[np.float64],
) -> tuple[float, float, float]:
    """s, m and c of (Σa − R Σb)² − Σ(a_reach² − 2 ρ R a_reach b_reach + R² b_reach²) = s R² − 2 m R + c."""
    return (
        float(b.sum() ** 2 - (b_reach**2).sum()),
        float(a.sum() * b.sum() - (correlation * a_reach * b_reach).sum()),
        float(a.sum() ** 2 - (a_reach**2).sum()),
    )


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean.

    Args:
        values: of which it is, one dimension.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        Lower and upper end; NaN of fewer than two values.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2:
        return np.nan, np.nan
    half = float(stdtrit(len(known) - 1, 0.5 + confidence / 2)) * float(known.std(ddof=1)) / len(known) ** 0.5
    return float(known.mean()) - half, float(known.mean()) + half
