"""What defenses gain and cost, on outcomes whose right answer is known, and beside separate ways to count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mergerisk.statistics import compare_targets, paired_difference, tables_from_outcomes
from mergerisk.statistics.priced import Holder
from mergerisk.statistics.prices import accuracies, price

EPSILONS = (0.01, 0.02, 0.04)
HOLDERS = (
    Holder("expert", "unaware", None, "expert"),
    Holder("aware/d", "aware", "d", "expert"),
    Holder("own_merge", "own_merge", None, "own_merge"),
    Holder("d", "white_box", "d", None),
)


def rows(target: str, surrogate: str, falls: dict[str, list[int]], attack: str = "pgd") -> list[dict[str, Any]]:
    """Outcomes of images each of which falls at one of the budgets by place, or at none (3); −1 is named wrongly when
    clean. The surrogate always falls."""
    return [
        {
            "task": task, "attack": attack, "surrogate": surrogate, "target": target, "epsilon": epsilon, "seed": 0,
            "steps": 10, "image": image, "label": 0, "surrogate_clean": 0, "target_clean": int(at < 0),
            "surrogate_adversarial": 1, "target_adversarial": int(place >= at), "aimed_at": -1, "l2": 0.0,
            "linf": 0.0, "zero_gradients": 0,
        }
        for task, places in falls.items()
        for image, at in enumerate(places)
        for place, epsilon in enumerate(EPSILONS)
    ]  # fmt: skip


BASE = {"a": [0, 0, 1, 2], "b": [0, 1, 1, 3]}
"""ASR 3/8, 6/8, 7/8: one half lies at a third of the way from .01 to .02, on a logarithmic scale."""
UNAWARE = {"a": [2, 2, 3, -1], "b": [3, 2, 3, 3]}
AWARE = {"a": [1, 1, 2, -1], "b": [1, 1, 2, 3]}


def outcomes() -> pd.DataFrame:
    never = {task: [3] * 4 for task in BASE}
    return pd.DataFrame(
        [
            *rows("m", "expert", BASE),
            *rows("m", "expert", never, "weak"),
            *rows("m", "own_merge", {task: [0] * 4 for task in BASE}),
            *rows("d", "expert", UNAWARE),
            *rows("d", "expert", never, "weak"),
            *rows("d", "aware/d", AWARE),
            *rows("d", "own_merge", {task: [0] * 4 for task in BASE}),
            *rows("d", "d", {task: [0] * 4 for task in BASE}),
        ]
    )


CLEAN = pd.DataFrame(
    {
        "task": ["a"] * 8 + ["b"] * 8,
        "model": (["m"] * 4 + ["d"] * 4) * 2,
        "seed": 0,
        "image": [0, 1, 2, 3] * 4,
        "label": 0,
        "prediction": [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
    }
)


def crossing(low: float, high: float, between: tuple[float, float] = (0.01, 0.02)) -> float:
    share = (0.5 - low) / (high - low)
    return math.exp((1 - share) * math.log(between[0]) + share * math.log(between[1]))


def test_every_attacker_is_counted_on_the_images_that_all_models_know() -> None:
    (found,) = price(outcomes(), CLEAN, {"d": "m"}, HOLDERS, 0.02)
    by_name = {one.surrogate: one for one in found.attackers}
    assert [*by_name] == ["expert", "aware/d", "own_merge", "d"]
    aware = by_name["aware/d"]
    # Without a's last image: undefended 2/3 and 1/4 at .01; aware 0 there, 2/3 and 2/4 at .02.
    assert (aware.attack, aware.beside, aware.beside_attack, aware.images) == ("pgd", "expert", "pgd", 7)
    assert aware.undefended_epsilon50.value == pytest.approx(crossing((2 / 3 + 1 / 4) / 2, (1 + 3 / 4) / 2))
    assert aware.epsilon50.value == pytest.approx(crossing(0, (2 / 3 + 2 / 4) / 2))
    assert aware.gain.value == pytest.approx(aware.epsilon50.value / aware.undefended_epsilon50.value)
    assert aware.bound == "exact"
    assert aware.asr.value == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert aware.relative_difference.value == pytest.approx((2 / 3 + 2 / 4) / 2 - (1 + 3 / 4) / 2)
    assert aware.gain.low <= aware.gain.value <= aware.gain.high
    white = by_name["d"]
    assert (white.beside, white.bound, white.epsilon50.value, white.images) == ("", "unknown", 0.0, 8)
    assert math.isnan(white.gain.value)
    assert by_name["own_merge"].bound == "unknown"  # both below the smallest budget


def test_the_worst_of_a_model_holds_no_merge_and_stands_beside_the_others_own_worst() -> None:
    (found,) = price(outcomes(), CLEAN, {"d": "m"}, HOLDERS, 0.02)
    assert found.worst is not None
    assert found.unaware is not None
    assert (found.worst.surrogate, found.unaware.surrogate) == ("aware/d", "expert")
    # Of the unaware at .04: a 2/3, b 1/4: none fools half of all.
    assert found.unaware.epsilon50.value == math.inf
    gained = 255 * (found.worst.epsilon50.value - found.worst.undefended_epsilon50.value)
    assert found.points_per_unit == pytest.approx(100 * found.accuracy.lost.value / gained)


def test_relative_asr_is_that_of_two_targets_compared() -> None:
    """Told by the machinery of claims, on one attack and budget of the same name."""
    table = outcomes()
    table = table[(table["attack"] == "pgd") & (table["surrogate"] == "expert") & (table["epsilon"] == 0.02)]
    tables = tables_from_outcomes(table[table["image"] < 3].reset_index(drop=True), merges=["m", "d"])
    theirs = compare_targets(tables, "d", "m", resamples=100).differences["relative_asr"]
    (found,) = price(outcomes()[lambda t: t["image"] < 3], CLEAN, {"d": "m"}, HOLDERS[:1], 0.02)
    assert found.attackers[0].relative_difference.value == pytest.approx(theirs)


def test_intervals_are_paired_and_cover() -> None:
    """A defense that changes nothing gains exactly nothing, whatever is resampled."""
    random = np.random.default_rng(0)
    falls = {task: random.integers(0, 4, 40).tolist() for task in ("a", "b")}
    table = pd.DataFrame([*rows("m", "expert", falls), *rows("d", "expert", falls)])
    (found,) = price(table, CLEAN, {"d": "m"}, HOLDERS[:1], 0.02)
    (one,) = found.attackers
    assert (one.gain.value, one.gain.low, one.gain.high) == (1.0, 1.0, 1.0)
    assert (one.relative_difference.low, one.relative_difference.high) == (0.0, 0.0)
    assert one.epsilon50.low < one.epsilon50.value < one.epsilon50.high


def test_clean_points_are_lost_on_the_same_images() -> None:
    found = accuracies(CLEAN, "d", "m")
    assert (found.undefended.value, found.defended.value, found.lost.value) == (7 / 8, 3 / 4, 1 / 8)
    ends = [np.array(paired_difference(*counts)) for counts in ((3, 0, 1, 0), (3, 0, 0, 1))]
    below = np.hypot(*(value - low for value, low, _ in ends)) / 2
    assert found.lost.low == pytest.approx(1 / 8 - below)


@pytest.mark.parametrize(("falls", "bound"), [([3] * 4, "at_least"), ([0] * 4, "at_most"), ([1] * 4, "exact")])
def test_what_lies_beyond_the_budgets_bounds_the_gain(falls: list[int], bound: str) -> None:
    table = pd.DataFrame([*rows("m", "expert", {"a": [0, 1, 1, 2]}), *rows("d", "expert", {"a": falls})])
    (found,) = price(table, CLEAN, {"d": "m"}, HOLDERS[:1], 0.02)
    assert found.attackers[0].bound == bound
