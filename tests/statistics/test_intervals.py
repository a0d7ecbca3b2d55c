"""Intervals against scipy's, and against the coverage they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from mergerisk.statistics import mean_interval, mean_ratio_interval, paired_ratio_interval, wilson_interval
from tests.naive.intervals import bonett_price, ratio_of_means


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


@pytest.mark.parametrize(
    ("both", "first", "second"), [(28, 4, 36), (3, 0, 5), (40, 0, 0), (1, 12, 2), (12.5, 3.25, 7.0), (0, 5, 4)]
)
def test_paired_ratio_equals_a_transcription(both: float, first: float, second: float) -> None:
    low, high = paired_ratio_interval(both, first, second)
    assert (float(low), float(high)) == pytest.approx(bonett_price(both, first, second), rel=1e-9)
    # the ratio the other way round has the interval the other way round
    back_low, back_high = paired_ratio_interval(both, second, first)
    assert (1 / float(back_high), 1 / float(back_low)) == pytest.approx((float(low), float(high)))


def test_paired_ratio_with_nothing_on_one_side() -> None:
    low, high = paired_ratio_interval([0, 0, 0], [3, 0, 0], [0, 3, 0])
    assert low[0] > 0
    assert high[0] == np.inf  # nothing bounds the denominator away from 0
    assert low[1] == 0
    assert 0 < high[1] < np.inf
    assert np.isnan([low[2], high[2]]).all()


# chances of target and surrogate, and the correlation of the two on an image
SHAPES = [(0.3, 0.5, 0.4), (0.05, 0.8, 0.1), (0.9, 0.95, 0.5), (0.1, 0.1, 0.3), (0.5, 0.05, 0.1), (0.6, 0.6, 0.0)]


def joint(random: np.random.Generator, shape: tuple[float, float, float], images: int, times: int) -> np.ndarray:
    """How often both are fooled, only the first, only the second, neither: times × 4."""
    p, q, rho = shape
    both = min(p * q + rho * np.sqrt(p * (1 - p) * q * (1 - q)), p, q)
    return random.multinomial(images, [both, p - both, q - both, 1 - p - q + both], times)


@pytest.mark.parametrize("images", [30, 60, 200])
def test_paired_ratio_covers_the_true_ratio(images: int) -> None:
    random = np.random.default_rng(images)
    for shape in SHAPES:
        counts = joint(random, shape, images, 5000)
        low, high = paired_ratio_interval(*counts.T[:3])
        known = ~np.isnan(low)
        assert known[counts[:, :3].sum(axis=1) > 0].all()
        covered = ((low <= shape[0] / shape[1]) & (shape[0] / shape[1] <= high))[known].mean()
        # few images or rates near the ends make it cautious, never careless
        assert 0.938 < covered < (0.97 if images > 60 else 0.995), shape


def test_ratio_of_means_equals_bisection() -> None:
    first = [(0.2, 0.12, 0.31), (0.6, 0.49, 0.7)]
    second = [(0.8, 0.7, 0.87), (0.5, 0.39, 0.61)]
    for rho in ([0.0, 0.0], [0.4, -0.2], [1.0, 0.9]):
        low, high = mean_ratio_interval(
            tuple(np.array(first).T),
            tuple(np.array(second).T),
            rho,  # type: ignore[arg-type]
        )
        assert (low, high) == pytest.approx(ratio_of_means(first, second, rho), rel=1e-8)


def test_ratio_of_means_at_the_ends() -> None:
    none, some = (0.0, 0.0, 0.1), (0.3, 0.2, 0.4)
    low, high = mean_ratio_interval(none, some, 0.0)
    assert low == 0
    assert 0 < high < 1
    assert np.isnan(mean_ratio_interval(some, none, 0.0)).all()
    low, high = mean_ratio_interval(some, (0.01, 0.0, 0.2), 0.0)
    assert 0 < low < 30
    assert high == np.inf


def test_ratio_of_means_covers_the_true_ratio() -> None:
    """One surrogate is hardly ever fooled: a mean of ratios would be of no use."""
    random = np.random.default_rng(3)
    shapes = [(0.5, 0.9, 0.2), (0.1, 0.02, 0.1), (0.3, 0.4, 0.5), (0.05, 0.1, 0.2)]
    drawn = np.stack([joint(random, shape, 60, 2000) for shape in shapes])  # strata × times × 4
    truth = sum(shape[0] for shape in shapes) / sum(shape[1] for shape in shapes)
    p, q, both = ((drawn[..., list(which)].sum(axis=-1)) / 60 for which in ((0, 1), (0, 2), (0,)))
    with np.errstate(invalid="ignore"):
        rho = np.nan_to_num((both - p * q) / np.sqrt(p * (1 - p) * q * (1 - q)))
    ends = [np.stack([rate, *wilson_interval(60 * rate, 60)]) for rate in (p, q)]
    covered = 0
    for time in range(2000):
        low, high = mean_ratio_interval(*(tuple(part[:, :, time]) for part in ends), rho[:, time])  # type: ignore[arg-type]
        covered += low <= truth <= high
    assert covered / 2000 == pytest.approx(0.955, abs=0.02)


def test_the_interval_of_a_mean_equals_scipys() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=7)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert mean_interval(values, confidence=0.9) == pytest.approx(tuple(expected), rel=1e-12)
    assert np.isnan(mean_interval(values[:1])).all()
