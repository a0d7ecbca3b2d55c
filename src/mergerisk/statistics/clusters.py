"""Means of numbers that come in clusters, as settings come in tasks; and what an interval says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from mergerisk.statistics.facts import Fact, fact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike

Over = Literal["images", "tasks"]


@dataclass(frozen=True)
class Interval:
    """An interval of an effect.

    Attributes:
        low: lower end.
        high: upper end.
        confidence: coverage aimed at.
        over: what another study may have drawn anew: ``images`` (of these tasks; with several seeds also
            those) or ``tasks``.
        how: how it was made.
    """

    low: float
    high: float
    confidence: float
    over: Over
    how: Fact

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class ClusterMean:
    """A mean of numbers that come in clusters.

    Attributes:
        mean: of all numbers.
        error: its standard error, between clusters; NaN for one cluster.
        clusters: how many.
    """

    mean: float
    error: float
    clusters: int

    def interval(self, confidence: float) -> Interval:
        """Student's t with clusters − 1 degrees of freedom."""
        how = fact("t_over_tasks", tasks=self.clusters)
        if self.clusters < 2:
            return Interval(np.nan, np.nan, confidence, "tasks", how)
        reach = float(stats.t.isf((1 - confidence) / 2, self.clusters - 1)) * self.error
        return Interval(self.mean - reach, self.mean + reach, confidence, "tasks", how)

    def p_greater(self, against: float) -> float:
        """One-sided p-value of the mean lying above ``against``; NaN for one cluster."""
        if self.clusters < 2:
            return np.nan
        if self.error == 0:
            return 0.0 if self.mean > against else 1.0
        return float(stats.t.sf((self.mean - against) / self.error, self.clusters - 1))


def cluster_mean(values: ArrayLike, clusters: Iterable[Any]) -> ClusterMean:
    """Mean with a standard error that lets numbers of one cluster depend on each other in any way (Liang and Zeger
    1986, with the factor G / (G − 1)); of clusters of one size it is that of the clusters' means.

    Args:
        values: numbers, no NaN, at least one.
        clusters: of each.
    """
    numbers = np.asarray(values, dtype=np.float64)
    _, code = np.unique(np.asarray(list(clusters), dtype=str), return_inverse=True)
    mean = float(numbers.mean())
    totals = np.bincount(code, numbers - mean)
    g = len(totals)
    if g < 2:
        return ClusterMean(mean, np.nan, g)
    error = np.sqrt(g / (g - 1) * (totals**2).sum()) / len(numbers)
    return ClusterMean(mean, float(error), g)
