"""Every rate against a case counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mergerisk.statistics import accuracy_table, epsilon50_table, fall_table, rate_table
from mergerisk.transfer import final_iterates, rates
from tests.naive.intervals import bonett_price

# Eight images, label 0 throughout. Columns: surrogate clean, target clean, surrogate attacked, target attacked.
OUTCOMES = [
    (0, 0, 1, 1),  # both right, both fooled, same mistake
    (0, 0, 1, 2),  # both right, both fooled, different mistakes
    (0, 0, 1, 0),  # fools the surrogate only
    (0, 0, 0, 1),  # fools the target only
    (0, 0, 0, 0),  # fools neither
    (1, 0, 1, 1),  # the surrogate was wrong already: no rate among both-correct counts it
    (0, 1, 1, 1),  # the target was wrong already: counts for asr_all only
    (0, 1, 1, 0),  # the target was wrong, and the attack corrects it
]


def outcomes(rows: list[tuple[int, int, int, int]], **names: object) -> pd.DataFrame:
    setting = {
        "task": "t",
        "attack": "a",
        "surrogate": "s",
        "target": "m",
        "epsilon": 0.1,
        "seed": 0,
        "steps": 10,
    } | names
    columns = ["surrogate_clean", "target_clean", "surrogate_adversarial", "target_adversarial"]
    table = pd.DataFrame(rows, columns=columns).assign(label=0, image=range(len(rows)), **setting)
    sizes = {"l2": np.arange(len(rows), dtype=float), "linf": 0.1}
    return table.assign(aimed_at=-1, zero_gradients=[3] + [0] * (len(rows) - 1), **sizes)


def test_all_rates_of_the_hand_counted_case() -> None:
    row = rates(outcomes(OUTCOMES)).iloc[0]
    assert row["images"] == 8
    assert row["images_both_correct"] == 5
    assert row["images_both_fooled"] == 2
    assert row["clean_accuracy_surrogate"] == 7 / 8
    assert row["clean_accuracy_target"] == 6 / 8
    assert row["asr"] == 3 / 5
    assert row["asr_all"] == 5 / 8
    assert row["surrogate_asr"] == 3 / 5
    assert row["relative_asr"] == pytest.approx(1.0)
    assert row["delta_asr"] == pytest.approx(0.0)
    assert row["same_mistake"] == 1 / 2
    assert row["mean_l2"] == 3.5
    assert row["zero_gradient_images"] == 1


def test_relative_and_delta_differ_where_the_target_resists() -> None:
    row = rates(outcomes(OUTCOMES[:3])).iloc[0]
    assert row["relative_asr"] == pytest.approx(2 / 3)
    assert row["delta_asr"] == pytest.approx(100 * (2 / 3 - 1))


def test_targeted_success_counts_the_class_aimed_at() -> None:
    untargeted = outcomes(OUTCOMES)
    assert np.isnan(rates(untargeted).iloc[0]["targeted_success"])
    # Both right on the first five images; of those the second is taken for class 2.
    assert rates(untargeted.assign(aimed_at=2)).iloc[0]["targeted_success"] == 1 / 5


def test_final_iterates_are_those_of_each_attacks_last_step() -> None:
    kept = pd.concat(
        [outcomes(OUTCOMES[:2], steps=3), outcomes(OUTCOMES[:2]), outcomes(OUTCOMES[:2], attack="b", steps=1)]
    )
    assert final_iterates(kept).tolist() == [False, False, True, True, True, True]
    assert rates(kept)["steps"].tolist() == [3, 10, 1]


def test_empty_denominators_are_nan() -> None:
    row = rate_table(outcomes(OUTCOMES[5:])).iloc[0]
    assert row["images_both_correct"] == 0
    for name in ("asr", "asr_low", "asr_high", "surrogate_asr", "relative_asr", "delta_asr", "same_mistake"):
        assert np.isnan(row[name]), name
    assert row["asr_all"] == 2 / 3
    unfooled = rates(outcomes([(0, 0, 0, 1)])).iloc[0]
    assert np.isnan(unfooled["relative_asr"])
    ends = rate_table(outcomes([(0, 0, 0, 1)])).iloc[0][["relative_asr_low", "relative_asr_high"]]
    assert ends.isna().all()


def test_relative_asr_has_the_interval_of_paired_rates() -> None:
    row = rate_table(outcomes(OUTCOMES)).iloc[0]
    # of the five both get right, two fool both, one the target alone and one the surrogate alone
    assert (row["relative_asr_low"], row["relative_asr_high"]) == pytest.approx(bonett_price(2, 1, 1))


def test_settings_are_kept_apart_and_intervals_surround_rates() -> None:
    both = pd.concat([outcomes(OUTCOMES), outcomes(OUTCOMES[:3], epsilon=0.2), outcomes(OUTCOMES, target="n")])
    table = rate_table(both)
    assert len(table) == 3
    assert table["images"].tolist() == [8, 3, 8]
    assert (table["asr_low"] < table["asr"]).all()
    assert (table["asr"] < table["asr_high"]).all()
    assert (table["asr_all_low"] < table["asr_all"]).all()
    # Wilson, 3 of 5, from the closed form.
    assert table["asr_low"][0] == pytest.approx(0.2307, abs=1e-4)
    assert table["asr_high"][0] == pytest.approx(0.8824, abs=1e-4)


def test_accuracy_is_counted_per_task_model_and_seed() -> None:
    clean = pd.DataFrame(
        {"task": ["t"] * 4, "model": ["m", "m", "n", "n"], "seed": 0, "label": 0, "prediction": [0, 1, 0, 0]}
    )
    table = accuracy_table(clean)
    assert table["accuracy"].tolist() == [0.5, 1.0]
    assert table["images"].tolist() == [2, 2]
    assert table["high"].tolist()[1] == 1.0


def test_curves_are_assembled_from_rows_in_any_order() -> None:
    small = outcomes([(0, 0, 1, 0)] * 15 + [(0, 0, 1, 1)] * 5, epsilon=1 / 255)
    large = outcomes([(0, 0, 1, 0)] * 5 + [(0, 0, 1, 1)] * 15, epsilon=4 / 255)
    shuffled = pd.concat([large, small]).sample(frac=1, random_state=0)
    row = epsilon50_table(shuffled).iloc[0]
    assert row["status"] == "measured"
    assert row["epsilon50"] == pytest.approx(2 / 255)
    assert fall_table(shuffled, {"a"}).empty


def test_a_falling_curve_is_tabled() -> None:
    small = outcomes([(0, 0, 1, 1)] * 20, epsilon=1 / 255)
    large = outcomes([(0, 0, 1, 0)] * 20, epsilon=4 / 255)
    (row,) = fall_table(pd.concat([small, large]), {"a"}).to_dict("records")
    assert (row["epsilon_from"], row["epsilon_to"]) == (1 / 255, 4 / 255)
    assert (row["asr_from"], row["asr_to"]) == (1.0, 0.0)
    assert row["reason"].kind == "step_overshoots"
