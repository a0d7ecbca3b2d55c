"""Dose and response: planted causes move with outcomes, companions do not, and chance stays at its level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.statistics import epsilon50
from mergerisk.statistics.explaining import Contrast, dose_table, responses, verdicts
from tests.statistics.explaining.made import changed
from tests.statistics.explaining.test_explaining import within

CHANGES = [
    Contrast(name, {"merge": 0.0, name: 1.0}) for name in ("cause moved", "companion moved", "nothing moved")
]
NAMES = ["cause", "companion"]


def said(table: pd.DataFrame, names: list[str] = NAMES) -> pd.DataFrame:
    return responses(table, names, CHANGES, resamples=400, small_outcome=0.05).set_index(["change", "diagnostic"])


def test_a_planted_cause_is_found_and_its_companion_is_not_called_one() -> None:
    together = []
    for seed in range(10):
        table = changed(seed, effect=1.0, moved=1.5, images=500)
        # To who only looks, the companion goes with outcomes.
        plain = table[(table["target"] == "merge") & (table["epsilon"] == 0.04)]
        assert stats.spearmanr(plain["companion"], plain["fooled"]).pvalue < 1e-6
        found = responses(table, NAMES, CHANGES, resamples=400, small_outcome=0.05)
        by = found.set_index(["change", "diagnostic"])
        assert by.loc[("cause moved", "cause"), "verdict"] == "moves with"
        assert by.loc[("cause moved", "companion"), "state"] == "stayed"
        together.append(verdicts(found).set_index("diagnostic"))
    assert all(one.loc["cause", ["verdict", "direction"]].tolist() == ["moves with", 1] for one in together)
    companion = [one.loc["companion", "verdict"] for one in together]
    # But for a false finding on outcomes, at its level.
    assert within(companion.count("moves with"), 10, 0.05)
    assert companion.count("does not") >= 6


def test_a_cause_that_works_the_other_way_has_another_direction() -> None:
    found = said(changed(1, effect=-1.0, moved=1.5, images=400))
    assert found.loc[("cause moved", "cause"), "verdict"] == "moves with"
    assert found.loc[("cause moved", "cause"), "direction"] == -1


def test_false_findings_stay_at_their_level() -> None:
    """Outcomes move with one change, by whatever else; of six idle diagnostics none should be said to move with
    them, but in one study of twenty."""
    idle = [f"idle {place}" for place in range(6)]
    called, p, missed, outcome = 0, [], [], []
    for seed in range(40):
        found = said(changed(seed, direct=1.5, images=40, idle=6), idle)
        called += bool((found["verdict"] == "moves with").any())
        p += found["p"].tolist()
        missed += ((found["low"] > 0) | (found["high"] < 0)).tolist()
        outcome.append(found.loc[("nothing moved", "idle 0"), "outcome_p"])
    assert within(called, 40, 0.05)
    # Tests of one change share its reference, and 18 of one study half their images: a wide allowance.
    assert np.mean(np.array(p) < 0.05) < 0.07
    assert np.mean(missed) < 0.08
    assert within(int((np.array(outcome) < 0.05).sum()), 40, 0.05)


def test_what_stays_is_told_from_what_is_not_known() -> None:
    many, few = (said(changed(4, effect=1.0, images=images)) for images in (1500, 12))
    assert many.loc[("nothing moved", "cause"), ["state", "outcome_state"]].tolist() == ["stayed", "stayed"]
    assert many.loc[("nothing moved", "cause"), "verdict"] == "cannot be told", "nothing was changed"
    assert few.loc[("nothing moved", "cause"), "outcome_state"] == "cannot be told"
    assert few.loc[("companion moved", "companion"), "verdict"] == "cannot be told"


def test_the_response_is_the_mean_slope_of_images() -> None:
    random = np.random.default_rng(0)
    doses = {"@0": 0.0, "@0.1": 0.1, "@0.5": 0.5, "@1": 1.0}
    slopes = {"one": random.normal(2, 1, 30), "two": random.normal(-1, 1, 50)}
    rows = [
        {"task": task, "attack": "fgsm", "epsilon": 0.1, "target": target, "image": image, "surrogate": "expert"}
        | {"d": 3 + slope * dose + image, "fooled": image % 2 == 0}
        for task, own in slopes.items()
        for image, slope in enumerate(own)
        for target, dose in doses.items()
    ]
    found = responses(pd.DataFrame(rows), ["d"], [Contrast("path", doses)]).iloc[0]
    assert found["response"] == pytest.approx(np.mean([own.mean() for own in slopes.values()]))
    error = np.sqrt(sum(own.var(ddof=1) / len(own) for own in slopes.values())) / 2
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(found["response"]) / error, 78))
    # 1,000 resamples: ends of a normal interval to a few of its hundredths
    assert found["low"] == pytest.approx(found["response"] - 1.96 * error, abs=0.25 * error)
    assert found["high"] == pytest.approx(found["response"] + 1.96 * error, abs=0.25 * error)
    assert (found["surrogate"], found["images"], found["tasks"]) == ("expert", 80, 2)
    assert found["outcome_response"] == 0
    assert found["outcome_state"] == "stayed"


def test_what_has_one_value_per_target_is_tested_over_tasks() -> None:
    table = changed(0, tasks=4, images=200)
    shift = {f"task {place}": 1 + 0.1 * place for place in range(4)}
    table["distance"] = table["task"].map(shift) * (table["target"] == "cause moved")
    table["spread"] = 2.0 + (table["target"] == "cause moved")
    found = responses(table, ["distance", "spread"], CHANGES).set_index(["change", "diagnostic"])
    distance = found.loc[("cause moved", "distance")]
    expected = stats.ttest_1samp([*shift.values()], 0)
    assert (distance["over"], distance["p"]) == ("tasks", pytest.approx(expected.pvalue))
    assert distance["low"] == pytest.approx(expected.confidence_interval().low)
    # The same in every task: known, however few tasks.
    assert found.loc[("cause moved", "spread"), ["response", "low", "high", "p"]].tolist() == [1, 1, 1, 0]
    alone = responses(table[table["task"] == "task 1"], ["distance"], CHANGES).iloc[0]
    assert np.isnan(alone["p"])
    assert alone["state"] == "cannot be told"


def test_only_images_that_count_for_all_targets_are_compared() -> None:
    table = changed(2, effect=1.0, images=40)
    holed = table[~((table["target"] == "cause moved") & (table["image"] < 10))]
    whole = responses(holed, ["cause"], CHANGES).set_index("change")
    assert whole["images"].tolist() == [60, 80, 80]
    without = responses(table[table["image"] >= 10], ["cause"], CHANGES).set_index("change")
    assert whole.loc["cause moved", "response"] == without.loc["cause moved", "response"]
    missing = holed.assign(cause=holed["cause"].where(holed["image"] != 20))
    assert responses(missing, ["cause"], CHANGES)["images"].tolist() == [58, 78, 78]
    doses = dose_table(holed, ["cause"], CHANGES)
    assert doses["images"].tolist() == [30] * 4 + [40] * 8


def test_doses_stand_side_by_side() -> None:
    table = changed(3, effect=1.0, images=80)
    path = Contrast("path", {"cause moved": 1.0, "merge": 0.0})
    found = dose_table(table, NAMES, [path], seed=5)
    assert found[["task", "target", "dose"]].to_numpy().tolist() == [
        [f"task {task}", target, dose] for task in (0, 1) for target, dose in (("merge", 0), ("cause moved", 1))
    ]
    row = found.iloc[3]
    own = table[(table["task"] == "task 1") & (table["target"] == "cause moved")]
    fooled = own.pivot(index="image", columns="epsilon", values="fooled")
    curve = epsilon50(fooled.to_numpy(), [0.01, 0.02, 0.04, 0.08], seed=5)
    assert (row["epsilon50"], row["epsilon50_low"], row["epsilon50_high"]) == (curve.value, curve.low, curve.high)
    assert row["status"] == curve.status
    assert row["asr"] == fooled[0.02].mean()
    assert row["companion"] == pytest.approx(own["companion"].mean())


def test_one_dose_is_no_contrast() -> None:
    with pytest.raises(UserError, match="ties: takes targets with two doses at least"):
        Contrast("ties", {"ties": 0.0, "dare": 0.0})


def test_verdicts_of_several_changes() -> None:
    def made(*each: tuple[str, int]) -> pd.DataFrame:
        rows = [{"surrogate": "expert", "diagnostic": "d", "verdict": v, "direction": d} for v, d in each]
        return verdicts(pd.DataFrame(rows))

    one = made(("moves with", 1), ("cannot be told", 0), ("moves with", 1)).iloc[0]
    assert (one["verdict"], one["direction"], one["with_"], one["untold"]) == ("moves with", 1, 2, 1)
    assert made(("moves with", 1), ("moves with", -1)).iloc[0]["verdict"] == "does not"
    assert made(("moves with", 1), ("does not", 0)).iloc[0]["verdict"] == "does not"
    assert made(("cannot be told", 0)).iloc[0]["verdict"] == "cannot be told"
