"""Intervals against scipy's, and against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from mergerisk.statistics import wilson_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(confidence: float) -> None:
    for n in (1, 2, 7, 40, 1000):
        for k in {0, 1, n // 3, n - 1, n}:
            expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
            low, high = wilson_interval(k, n, confidence=confidence)
            assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_ends_are_exact_and_nothing_gives_nan() -> None:
    low, high = wilson_interval([0, 5, 0], [5, 5, 0])
    assert low[0] == 0.0
    assert high[1] == 1.0
    assert np.isnan(low[2])
    assert np.isnan(high[2])


def test_coverage_is_near_nominal() -> None:
    random = np.random.default_rng(0)
    covered = []
    for p in (0.1, 0.3, 0.5, 0.8):
        k = random.binomial(100, p, 4000)
        low, high = wilson_interval(k, 100)
        covered.append(((low <= p) & (p <= high)).mean())
    # Wilson's coverage oscillates around 95 %; its mean is close.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)
    assert min(covered) > 0.92
