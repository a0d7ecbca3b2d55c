"""ε50 and falling curves against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest

from mergerisk.report.fact_words import said
from mergerisk.statistics import epsilon50, falls
from mergerisk.statistics.curves import epsilon50_of
from mergerisk.statistics.facts import fact


def curve(*counts: int, images: int = 20) -> np.ndarray:
    """images × budgets; at budget j the first ``counts[j]`` images are fooled."""
    return np.arange(images)[:, None] < np.array(counts)


def test_crossing_between_budgets_is_log_linear() -> None:
    # 25 % at 1, 75 % at 4: half way in log ε is 2.
    found = epsilon50(curve(5, 15), [1 / 255, 4 / 255])
    assert found.status == "measured"
    assert found.value == pytest.approx(2 / 255)
    assert 1 / 255 < found.low < found.value < found.high < 4 / 255


def test_exactly_one_half_is_the_budget_itself() -> None:
    assert epsilon50(curve(2, 10, 20), [0.01, 0.02, 0.04]).value == pytest.approx(0.02)


def test_censored_values_are_values() -> None:
    below = epsilon50(curve(12, 20), [0.01, 0.02])
    assert below.status == "below_smallest"
    assert np.isnan(below.value)
    assert below.low == 0.0
    never = epsilon50(curve(1, 2), [0.01, 0.02])
    assert never.status == "not_reached"
    assert np.isnan(never.value)
    assert never.high == np.inf
    assert never.low == np.inf
    nothing = epsilon50(np.zeros((0, 2), dtype=bool), [0.01, 0.02])
    assert nothing.status == "no_images"


def test_an_interval_may_reach_into_the_censored() -> None:
    found = epsilon50(curve(8, 11), [0.01, 0.02])
    assert found.status == "measured"
    assert found.low < found.value
    assert found.high == np.inf


def test_the_first_crossing_counts_when_a_curve_falls() -> None:
    assert epsilon50(curve(0, 20, 5), [0.01, 0.02, 0.04]).value == pytest.approx(np.sqrt(0.01 * 0.02))


def test_interval_covers_the_truth() -> None:
    # P(fooled at ε) = ε/100 for ε in a fine grid: the truth is 50, up to log-linear interpolation.
    random = np.random.default_rng(1)
    epsilons = [30.0, 40.0, 50.0, 60.0, 75.0]
    hits = 0
    for _ in range(200):
        thresholds = random.uniform(0, 100, 80)
        found = epsilon50(thresholds[:, None] < np.array(epsilons), epsilons, resamples=300)
        hits += found.low <= 50.0 <= found.high
    assert hits / 200 > 0.9


def never(matrix: np.ndarray) -> np.ndarray:
    return np.zeros_like(matrix)


def test_a_rising_curve_and_noise_are_not_flagged() -> None:
    rising = curve(3, 9, 15)
    assert falls(rising, surrogate_fooled=rising, zero_gradients=never(rising), single_step=False) == []
    noisy = curve(10, 8)
    assert falls(noisy, surrogate_fooled=noisy, zero_gradients=never(noisy), single_step=False) == []


def test_a_fall_is_flagged_with_its_exact_p_value_and_reason() -> None:
    fallen = curve(19, 9)
    everywhere = np.ones_like(fallen)
    (found,) = falls(fallen, surrogate_fooled=everywhere, zero_gradients=never(fallen), single_step=False)
    assert (found.position, found.asr_from, found.asr_to) == (0, 0.95, 0.45)
    assert found.p_value == pytest.approx(0.5**10)
    assert found.reason == fact("overfits_surrogate")

    stuck = np.stack([np.zeros(20, dtype=bool), np.arange(20) >= 12], axis=1)
    (found,) = falls(fallen, surrogate_fooled=fallen, zero_gradients=stuck, single_step=False)
    assert found.reason == fact("zero_gradients", count=7, of=10)
    assert said(found.reason) == "exact zero gradients at saturated confidence on 7 of the 10 images lost"

    (found,) = falls(fallen, surrogate_fooled=fallen, zero_gradients=never(fallen), single_step=True)
    assert found.reason == fact("step_overshoots")

    (found,) = falls(fallen, surrogate_fooled=fallen, zero_gradients=never(fallen), single_step=False)
    assert found.reason == fact("steps_overshoot_on_surrogate")


def test_many_curves_at_once_are_each_as_if_alone() -> None:
    random = np.random.default_rng(5)
    curves = [
        (random.uniform(size=(images, len(budgets))) < np.linspace(0.1, top, len(budgets)), budgets)
        for images, top, budgets in [
            (30, 0.9, (1, 2, 4)), (30, 0.6, (1, 2, 4)), (30, 0.9, (1, 4)), (0, 0.5, (1, 2)), (31, 0.95, (1, 2, 4)),
        ]
    ]  # fmt: skip
    together = epsilon50_of(curves, resamples=200)
    for found, (fooled, budgets) in zip(together, curves, strict=True):
        alone = epsilon50(fooled, budgets, resamples=200)
        assert repr(found) == repr(alone)
    # and by hand: every resample's rates, one after the other
    fooled, budgets = curves[0]
    draws = np.random.default_rng([0, 30]).multinomial(30, np.full(30, 1 / 30), 200)
    values = []
    for times in draws:
        rates = [sum(n for n, x in zip(times, fooled[:, b], strict=True) if x) / 30 for b in range(3)]
        first = next((b for b in range(3) if rates[b] >= 0.5), None)
        if first is None or first == 0:
            values.append(np.inf if first is None else 0.0)
            continue
        share = (0.5 - rates[first - 1]) / (rates[first] - rates[first - 1])
        values.append(budgets[first - 1] * (budgets[first] / budgets[first - 1]) ** share)
    ordered = sorted(values)
    assert (together[0].low, together[0].high) == pytest.approx((ordered[4], ordered[194]))
