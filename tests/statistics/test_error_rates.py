"""How often tests err and intervals miss, on made-up data whose truth is known.

Bounds are binomial: a rate that is right passes with a chance of about 99.9 %.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from mergerisk.statistics import (
    ExtremeClaim,
    PairedClaim,
    RateClaim,
    TrendClaim,
    cluster_mean,
    compare_targets,
    conover,
    critical_difference,
    detectable_rho,
    detectable_share,
    detectable_shift,
    friedman,
    holm,
    judge_claims,
    mcnemar,
    page,
    sign_test,
    signed_rank,
    tables_from_outcomes,
)
from mergerisk.statistics.correction import benjamini_hochberg
from tests.statistics.made_up import outcomes

SIMULATIONS = 500
ONE = {"surrogates": ["expert"], "epsilons": [0.01]}


def at_most(errors: int, of: int, rate: float, looks: int = 1) -> bool:
    """Whether that many errors are no more than chance explains, of the largest of several counts."""
    return errors <= binom.isf(1e-3 / looks, of, rate)


def about(hits: int, of: int, rate: float) -> bool:
    return binom.isf(1 - 1e-3, of, rate) <= hits <= binom.isf(1e-3, of, rate)


def test_rank_tests_find_nothing_in_noise_at_their_level() -> None:
    random = np.random.default_rng(0)
    found = {"friedman": 0, "iman-davenport": 0, "page": 0, "conover": 0, "signed rank": 0, "sign": 0}
    for _ in range(SIMULATIONS):
        matrix = random.normal(size=(30, 5)) + random.normal(size=(30, 1))
        result = friedman(matrix)
        found["friedman"] += result.p_value < 0.05
        found["iman-davenport"] += result.f_p_value < 0.05
        found["page"] += page(matrix, np.arange(5)).p_value < 0.05
        found["conover"] += conover(matrix)[0, 1] < 0.05
        difference = matrix[:, 0] - matrix[:, 1]
        found["signed rank"] += signed_rank(difference).p_value < 0.05
        found["sign"] += sign_test(np.sign(difference)).p_value < 0.05
    for name in ("friedman", "iman-davenport", "page", "conover", "signed rank"):
        assert about(found[name], SIMULATIONS, 0.05), (name, found[name])
    assert at_most(found["sign"], SIMULATIONS, 0.05)


def test_nemenyi_errs_in_a_family_at_its_level() -> None:
    random = np.random.default_rng(1)
    k, n = 6, 40
    ranks = random.normal(size=(4000, n, k)).argsort(axis=2).argsort(axis=2).mean(axis=1)
    apart = (np.ptp(ranks, axis=1) >= critical_difference(k, n)).sum()
    assert about(int(apart), 4000, 0.05)


def test_mcnemar_keeps_its_level_and_mid_p_uses_it_up() -> None:
    random = np.random.default_rng(2)
    b, c, _ = random.multinomial(300, [0.2, 0.2, 0.6], 20000).T
    exact, mid = (mcnemar(b, c, mid_p=mid_p) < 0.05 for mid_p in (False, True))
    assert exact.mean() < mid.mean()
    assert at_most(int(exact.sum()), len(exact), 0.05)
    assert 0.045 < mid.mean() < 0.055  # of whole numbers no level is reached exactly


def test_corrections_bound_what_they_say() -> None:
    random = np.random.default_rng(3)
    p = random.uniform(size=(2000, 10))
    false = p.copy()
    p[:, 6:] /= 1e4  # four true effects
    familywise = sum(bool((holm(row)[:6] < 0.05).any()) for row in p)
    assert at_most(familywise, len(p), 0.05)
    assert about(sum(bool((holm(row) < 0.05).any()) for row in false), len(p), 1 - 0.995**10)
    shares = [(found[:6].sum() / max(found.sum(), 1)) for row in p if len(found := benjamini_hochberg(row) < 0.05)]
    assert np.mean(shares) < 0.05 * 0.6 + 0.01


def test_intervals_over_tasks_cover_and_their_test_keeps_its_level() -> None:
    random = np.random.default_rng(4)
    covered = errors = 0
    for _ in range(SIMULATIONS):
        sizes = np.repeat(np.arange(6), 8)
        numbers = 0.3 + random.normal(size=6)[sizes] + random.normal(size=48)
        found = cluster_mean(numbers, sizes)
        interval = found.interval(0.95)
        covered += interval.low <= 0.3 <= interval.high
        errors += found.p_greater(0.3) < 0.05
    assert about(covered, SIMULATIONS, 0.95)
    assert about(errors, SIMULATIONS, 0.05)


def test_bootstrap_intervals_of_paired_differences_cover() -> None:
    covered = {"asr": 0, "delta_asr": 0}
    simulations = 80
    chances = {"ties": 0.5, "dare": 0.6}
    for seed in range(simulations):
        made = outcomes(chances, seed=seed, tasks=["a", "b"], attacks=["fgsm"], images=60, **ONE)
        found = compare_targets(tables_from_outcomes(made), "ties", "dare", resamples=200, seed=seed)
        truth = {"asr": -0.1, "delta_asr": -10.0}
        for measure, value in truth.items():
            covered[measure] += found.intervals[measure].low <= value <= found.intervals[measure].high
    for hits in covered.values():
        assert about(hits, simulations, 0.94)  # of 60 images a bootstrap takes the spread for 1 % too small


NULL = (
    RateClaim(name="delta", sentence="s", measure="delta_asr", expect="lower", against=0),
    RateClaim(name="half", sentence="s", measure="asr", expect="lower", against=0.5),
    PairedClaim(
        name="pair", sentence="s", measure="asr", expect="higher",
        first={"target": "ties"}, second={"target": "dare"},
    ),
    ExtremeClaim(name="worst", sentence="s", kind="worst", method="ties", measures=("asr",)),
    TrendClaim(name="trend", sentence="s", measure="asr", order=("ties", "dare", "adamerging")),
)  # fmt: skip
"""Nothing of which is so: all methods, and all surrogates, are fooled half the time."""


@pytest.mark.parametrize(
    ("tasks", "shared", "simulations"),
    [
        (1, 0.5, 20),
        pytest.param(1, 0.0, 100, marks=pytest.mark.slow),
        pytest.param(3, 1.0, 60, marks=pytest.mark.slow),
        pytest.param(7, 0.5, 60, marks=pytest.mark.slow),
    ],
)
def test_no_answer_errs_above_its_level_though_settings_share_images(
    tasks: int, shared: float, simulations: int
) -> None:
    """The worst of two equal attackers, and each by itself: no test takes settings on the same images for
    independent, and the choice of the worst counts no luck as skill. (Rank tests over settings err in most of such
    studies.)"""
    errors: dict[tuple[str, str], int] = {}
    for seed in range(simulations):
        made = outcomes(
            dict.fromkeys(("ties", "dare", "adamerging"), 0.5), seed=seed, tasks=[f"t{t}" for t in range(tasks)],
            epsilons=[0.01], images=60, shared=shared, white_box=0.5,
        )  # fmt: skip
        for verdict in judge_claims(tables_from_outcomes(made), NULL, resamples=200, seed=seed):
            tried = {"worst attacker": verdict.p_value} | {
                part.attacker: part.p_value for part in verdict.attackers
            }
            for attacker, p in tried.items():
                errors[verdict.name, attacker] = errors.get((verdict.name, attacker), 0) + (p < 0.05)
    for name, count in errors.items():
        assert at_most(count, simulations, 0.06, looks=len(errors)), (name, count)


@pytest.mark.slow
def test_trends_and_rates_cover_and_err_at_their_level() -> None:
    """Six methods that do not differ, on few images that settings share in part."""
    names = tuple(f"m{i}" for i in range(6))
    trend = TrendClaim(name="trend", sentence="ASR rises.", measure="asr", order=names)
    rate = RateClaim(name="rate", sentence="As often.", measure="relative_asr", expect="higher", against=1)
    simulations = 200
    covered = {"trend": 0, "rate": 0}
    errors = 0
    for seed in range(simulations):
        made = outcomes(
            dict.fromkeys(names, 0.5), seed=seed, images=60, shared=0.5, white_box=0.7,
            surrogates=["expert"], epsilons=[0.01],
        )  # fmt: skip
        found = judge_claims(tables_from_outcomes(made), [trend, rate], resamples=300, seed=seed)
        for verdict, truth in zip(found, (0.0, 0.5 / 0.7), strict=True):
            covered[verdict.name] += verdict.intervals[0].low <= truth <= verdict.intervals[0].high
        errors += (
            judge_claims(tables_from_outcomes(made), [trend], resamples=300, seed=seed)[0].answer != "inconclusive"
        )
    for hits in covered.values():
        assert about(hits, simulations, 0.94)
    assert at_most(errors, simulations, 0.05)


def test_detectable_effects_are_found_four_times_in_five() -> None:
    random = np.random.default_rng(5)
    # McNemar, on counts.
    images, discordant = 300, 0.3
    delta = detectable_share(images, discordant)
    shares = [(discordant + delta) / 2, (discordant - delta) / 2, 1 - discordant]
    b, c, _ = random.multinomial(images, shares, 4000).T
    assert (mcnemar(b, c, mid_p=True) < 0.05).mean() == pytest.approx(0.8, abs=0.03)
    # Signed ranks, of normal differences.
    shift = detectable_shift(random.normal(size=100_000)[:60])
    spread = random.normal(size=(800, 60))
    scale = shift / (2.8016 / np.sqrt(60 * 3 / np.pi))
    found = [signed_rank(shift + scale * row).p_value < 0.05 for row in spread]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    # Page, of blocks with a weak trend: the mean ρ that such a trend makes is measured, then compared.
    rho = detectable_rho(40, 6)
    slopes, power, made = np.linspace(0.05, 0.25, 5), [], []
    for slope in slopes:
        tests = [page(slope * np.arange(6) + random.normal(size=(40, 6)), np.arange(6)) for _ in range(150)]
        power.append(np.mean([test.p_value < 0.05 for test in tests]))
        made.append(np.mean([test.rho for test in tests]))
    assert np.interp(rho, made, power) == pytest.approx(0.8, abs=0.1)


def test_no_power_is_said_to_be_none() -> None:
    assert np.isnan(detectable_share(5, 0.2))
    assert np.isnan(detectable_share(100, 0.0))
    assert np.isnan(detectable_rho(2, 2))
    assert np.isnan(detectable_shift([1.0]))


def test_sets_of_images_are_clusters_when_tasks_are() -> None:
    """Tasks that differ: intervals over tasks are wider than those over images of the same tasks."""
    made = outcomes({"ties": 0.5, "dare": 0.5}, seed=3, images=200)
    worse = made["target"].eq("ties") & made["task"].isin(["digits", "letters", "signs"])
    made.loc[worse, "target_adversarial"] = 2
    tables = tables_from_outcomes(pd.DataFrame(made))
    widths = {}
    for tasks in ("strata", "clusters"):
        found = compare_targets(tables, "ties", "dare", tasks=tasks).intervals["asr"]
        widths[tasks] = found.high - found.low
        assert found.over == {"strata": "images", "clusters": "tasks"}[tasks]
    assert widths["clusters"] > 3 * widths["strata"]
