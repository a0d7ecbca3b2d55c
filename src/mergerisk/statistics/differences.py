"""Differences of two rates with intervals, many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.statistics.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]


def paired_difference(
    both: Counts, only_a: Counts, only_b: Counts, neither: Counts
) -> tuple[Floats, Floats, Floats]:
    """Rate of B less that of A over the same images (Newcombe 1998, Statistics in Medicine 17:2635, method 10).

    Args:
        both: images that count in A and in B, any shape; likewise
        only_a: in A alone,
        only_b: in B alone,
        neither: in none.

    Returns:
        Difference, lower and upper end, in [-1, 1]; NaN without images.
    """
    e, f, g, h = (np.asarray(part, dtype=np.float64) for part in (both, only_b, only_a, neither))
    n = e + f + g + h
    with np.errstate(divide="ignore", invalid="ignore"):
        p_b, p_a = (e + f) / n, (e + g) / n
        margins = (e + f) * (g + h) * (e + g) * (f + h)
        product = e * h - f * g
        # the continuity correction of method 10: towards no association, not beyond it
        corrected = np.where(product > 0, np.maximum(product - n / 2, 0), product)
        phi = np.where(margins > 0, corrected / np.sqrt(margins), 0.0)
    low_b, high_b = wilson_interval(e + f, n)
    low_a, high_a = wilson_interval(e + g, n)
    difference = p_b - p_a
    down_b, up_a, up_b, down_a = p_b - low_b, high_a - p_a, high_b - p_b, p_a - low_a
    below = np.sqrt(np.maximum(down_b**2 - 2 * phi * down_b * up_a + up_a**2, 0))
    above = np.sqrt(np.maximum(up_b**2 - 2 * phi * up_b * down_a + down_a**2, 0))
    return difference, difference - below, difference + above


def unpaired_difference(k_a: Counts, n_a: Counts, k_b: Counts, n_b: Counts) -> tuple[Floats, Floats, Floats]:
    """Rate of B less that of A over different images (Newcombe 1998, Statistics in Medicine 17:873, method 10).

    Returns:
        Difference, lower and upper end, in [-1, 1]; NaN where one has no images.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p_a, p_b = np.asarray(k_a) / np.asarray(n_a), np.asarray(k_b) / np.asarray(n_b)
    (low_a, high_a), (low_b, high_b) = wilson_interval(k_a, n_a), wilson_interval(k_b, n_b)
    difference = p_b - p_a
    below = np.hypot(p_b - low_b, high_a - p_a)
    return difference, difference - below, difference + np.hypot(high_b - p_b, p_a - low_a)
