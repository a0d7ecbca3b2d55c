"""Which method is the safest: on the same images, corrected, under the worst attacker."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from mergerisk.statistics import standings, tables_from_outcomes
from tests.statistics.made_up import outcomes
from tests.statistics.test_error_rates import at_most


def made(fooled: dict[str, np.ndarray], tasks: tuple[str, ...] = ("a",)) -> pd.DataFrame:
    """One attacker, one attack, one budget; which images of each task fool which method."""
    frames = [
        pd.DataFrame(
            {
                "task": task, "attack": "fgsm", "surrogate": "expert", "target": name, "epsilon": 0.01, "seed": 0,
                "steps": 1, "image": np.arange(len(hits)), "label": 0, "surrogate_clean": 0, "target_clean": 0,
                "surrogate_adversarial": 1, "target_adversarial": hits.astype(int), "aimed_at": -1, "l2": 1.0,
                "linf": 0.01, "zero_gradients": 0,
            }
        )
        for task in tasks for name, hits in fooled.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def test_a_pair_is_judged_on_the_same_images_not_by_overlapping_intervals() -> None:
    """Nested: every image that fools the safer method fools the other too. 50 % against 56 % of 200 images: their own
    intervals overlap widely, their difference on the same images does not reach 0."""
    image = np.arange(200)
    tables = tables_from_outcomes(made({"ties": image < 100, "dare": image < 112}), merges=["ties", "dare"])
    (found,) = standings(tables, ["dare", "ties"])
    ties, dare = found.methods
    assert (ties.name, ties.value, dare.value) == ("ties", 0.5, 0.56)
    assert ties.high > dare.low
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.difference) == ("ties", "dare", pytest.approx(0.06))
    # the standard error of a paired difference d, all discordant images on one side: sqrt(d (1 − d) / n)
    error = np.sqrt(0.06 * 0.94 / 200)
    assert pair.high - pair.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert pair.p_adjusted == pytest.approx(2 * norm.sf(0.06 / error), abs=5e-4)
    assert pair.apart
    assert (found.clear, found.alike, found.cliques, found.pairs_apart) == (True, (), (), 1)


def test_the_correction_is_over_all_pairs_and_cliques_follow_it() -> None:
    image = np.arange(200)
    fooled = {"a": image < 100, "b": image < 104, "c": image < 108, "d": image >= 40}
    (found,) = standings(tables_from_outcomes(made(fooled)), list(fooled))
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    assert len(pairs) == 6
    # a and b differ on 4 images: alone p would be 0.044
    assert not pairs["a", "b"].apart
    assert pairs["a", "b"].low < 0
    assert pairs["a", "c"].apart
    assert all(pairs[name, "d"].apart for name in "abc")
    assert (found.leader.name, found.alike, found.clear) == ("a", ("b",), False)
    assert found.cliques == (("a", "b"), ("b", "c"))
    assert all(pair.apart == (pair.low > 0) for pair in found.pairs)


def test_equals_and_methods_fooled_by_every_image_are_not_told_apart() -> None:
    always = np.ones(50, dtype=bool)
    (found,) = standings(tables_from_outcomes(made({"a": always, "b": always})), ["a", "b"])
    assert (found.pairs[0].difference, found.pairs[0].p_adjusted, found.clear) == (0, 1, False)
    # three images, all on one side: no certainty from the absence of spread
    (few,) = standings(tables_from_outcomes(made({"a": ~always[:3], "b": always[:3]})), ["a", "b"])
    assert few.pairs[0].p_adjusted == pytest.approx(0.25)


def test_the_worst_attacker_counts_and_white_boxes_do_not() -> None:
    """Safe from the expert, but not from the base."""
    image = np.arange(100)
    expert = made({"ties": image < 20, "dare": image < 40})
    base = made({"ties": image < 80, "dare": image < 40}).assign(surrogate="pretrained")
    white = made({"ties": image < 100, "dare": image < 100}).assign(surrogate="dare")
    tables = tables_from_outcomes(pd.concat([expert, base, white]), merges=["ties", "dare"])
    (found,) = standings(tables, ["ties", "dare"])
    assert found.attackers == ("expert", "pretrained")
    assert found.leader.name == "dare"
    assert found.methods[1].value == pytest.approx(0.8)
    assert found.clear


def test_rates_alone_and_a_single_method_give_no_lead() -> None:
    tables = tables_from_outcomes(made({"a": np.arange(10) < 5}))
    (alone,) = standings(tables, ["a"])
    assert (alone.pairs, alone.clear) == ((), False)
    assert standings(tables, ["b"]) == ()


def test_equal_methods_are_told_apart_in_few_studies() -> None:
    """Four equal methods, two equal attackers: some pair comes out apart in no more than a twentieth."""
    names = ("a", "b", "c", "d")
    wrong, simulations = 0, 60
    for seed in range(simulations):
        rows = outcomes(
            dict.fromkeys(names, 0.5), seed=seed, tasks=["s", "t"], attacks=["fgsm", "mi"], epsilons=[0.01], images=60,
            shared=0.5,
        )  # fmt: skip
        (found,) = standings(tables_from_outcomes(rows, merges=names), names, seed=seed, resamples=200)
        wrong += found.pairs_apart > 0
    assert at_most(wrong, simulations, 0.05)
