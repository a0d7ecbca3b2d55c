"""The figures behind the page, against ones worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from mergerisk.errors import UserError
from mergerisk.report import EPSILON50_COLUMNS, FLAG_COLUMNS, RESULT_COLUMNS, SCHEMA_VERSION, Summary
from mergerisk.report.accuracy import accuracy_table
from mergerisk.report.by_step import step_table
from mergerisk.report.cells import Axes, average_over_seeds, axes_of, cell_columns, default_epsilon
from mergerisk.report.epsilon50 import (
    ALL,
    censored_median,
    epsilon50_bin,
    epsilon50_table,
    epsilon50_text,
)
from mergerisk.report.findings import leader
from mergerisk.report.formatting import BINS, budget, colour_bin, duration, interval, listing, percent
from mergerisk.report.naming import change, holder
from mergerisk.report.risk import (
    Mean,
    budget_overview,
    carried_by_few,
    mean_of_ratios,
    mean_over_tasks,
    risk_table,
)
from mergerisk.report.threat import threat_picture
from mergerisk.report.view import view_of
from mergerisk.report.worst import rated, under_the_worst
from tests.naive.intervals import bonett_price

from .synthetic import result_row, run_record, standing, standings_of

E2, E4, E8 = 2 / 255, 4 / 255, 8 / 255


def tiny(results: list[dict[str, object]], **changes: object) -> Summary:
    fields: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "run": run_record(tasks=("digits", "letters"), methods=("ties", "dare"), attacks=("fgsm",)),
        "results": pd.DataFrame(results),
        "by_step": pd.DataFrame(columns=[*RESULT_COLUMNS, "steps"]),
        "accuracy": pd.DataFrame(
            [
                {"task": t, "model": m, "seed": 0, "images": 100, "accuracy": a, "low": a - 0.03, "high": a + 0.03}
                for t, m, a in [
                    ("digits", "ties", 0.8), ("letters", "ties", 0.6), ("digits", "dare", 0.9),
                    ("letters", "dare", 0.9), ("digits", "expert", 0.97),
                ]
            ]
        ),
        "epsilon50": pd.DataFrame(columns=list(EPSILON50_COLUMNS)),
        "flags": pd.DataFrame(columns=list(FLAG_COLUMNS)),
        "examples": (),
        "standings": standings_of(pd.DataFrame(results)),
    }  # fmt: skip
    return Summary(**(fields | changes))  # type: ignore[arg-type]


def pair(task: str, ties: float, dare: float, half: float = 0.05, **changes: object) -> list[dict[str, object]]:
    """One row per method; the surrogate is fooled 80 % of the time, independently of the target, of 80 images."""
    return [
        result_row(
            task=task, target=target, asr=asr, asr_low=asr - half, asr_high=asr + half, surrogate_asr=0.8,
            relative_asr=asr / 0.8, images_both_fooled=80 * 0.8 * asr, **changes,
        )
        for target, asr in (("ties", ties), ("dare", dare))
    ]  # fmt: skip


def findings_of(summary: Summary) -> dict[str, tuple[str, str, bool]]:
    view = view_of(summary)
    found = (*view.answers(), *view.findings())
    return {finding.question: (finding.headline, finding.sentence, finding.clear) for finding in found}


def test_axes_put_methods_first_and_references_last() -> None:
    rows = [*pair("digits", 0.4, 0.4), result_row(target="expert"), result_row(target="pretrained")]
    axes = axes_of(tiny([*rows, result_row(task="extra", target="new")]))
    assert axes.targets == ("ties", "dare", "new", "pretrained", "expert")
    assert axes.methods == ("ties", "dare", "new")
    assert axes.tasks == ("digits", "letters", "extra")


def test_seeds_are_averaged_and_counts_summed() -> None:
    rows = [
        result_row(seed=0, asr=0.4, images=100, images_both_fooled=28),
        result_row(seed=1, asr=0.6, images=90, images_both_fooled=44, surrogate_asr=0.7, relative_asr=6 / 7),
    ]
    (cell,) = average_over_seeds(pd.DataFrame(rows)).to_dict("records")
    assert cell["asr"] == pytest.approx(0.5)
    assert cell["images"] == 190
    assert cell["relative_asr"] == pytest.approx(0.5 / 0.75)  # a ratio of means, not (0.5 + 6/7) / 2
    # as many images as one seed has: of 80, 36 fool both, 40 the target, 60 the surrogate
    ends = bonett_price(36, 4, 24)
    assert (cell["relative_asr_low"], cell["relative_asr_high"]) == pytest.approx(ends)
    assert cell["correlation"] == pytest.approx((36 / 80 - 0.5 * 0.75) / (0.5 * math.sqrt(0.75 * 0.25)))


def test_one_seed_without_a_value_does_not_spoil_the_others() -> None:
    rows = [
        result_row(seed=0),
        result_row(
            seed=1,
            images_both_correct=0,
            images_both_fooled=0,
            asr=math.nan,
            relative_asr=math.nan,
            surrogate_asr=math.nan,
        ),
    ]
    (cell,) = average_over_seeds(pd.DataFrame(rows)).to_dict("records")
    assert cell["relative_asr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("surrogate_asr", "asr", "saturated"),
    [(0.99, 0.99, True), (1.0, 0.98, False), (0.98, 1.0, False), (1, 1, True)],
)
def test_a_cell_is_saturated_when_both_rates_are(surrogate_asr: float, asr: float, saturated: bool) -> None:
    cells = average_over_seeds(pd.DataFrame([result_row(asr=asr, surrogate_asr=surrogate_asr)]))
    assert cells["saturated"].tolist() == [saturated]


def test_default_epsilon_is_the_one_nearest_one_half() -> None:
    rows = [
        *pair("digits", 0.1, 0.3, epsilon=E2), *pair("digits", 0.4, 0.5, epsilon=E4),
        *pair("digits", 0.9, 1.0, epsilon=E8),
        # neither the reference targets nor white-box cells count
        result_row(target="pretrained", asr=0.5, epsilon=E2), result_row(target="expert", asr=0.8, epsilon=E2),
    ]  # fmt: skip
    summary = tiny(rows)
    assert default_epsilon(average_over_seeds(summary.results), axes_of(summary)) == E4


def test_default_epsilon_takes_the_smaller_of_two_as_near() -> None:
    summary = tiny([*pair("digits", 0.4, 0.4, epsilon=E2), *pair("digits", 0.6, 0.6, epsilon=E4)])
    assert default_epsilon(average_over_seeds(summary.results), axes_of(summary)) == E2


def test_default_epsilon_without_any_rate_is_the_middle() -> None:
    rows = [result_row(epsilon=e, asr=math.nan) for e in (E2, E4, E8)]
    summary = tiny(rows)
    assert default_epsilon(average_over_seeds(summary.results), axes_of(summary)) == E4


def test_mean_over_tasks_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "task": ["a", "a", "b"],
            "v": [0.2, 0.4, 0.7],
            "l": [0.1, 0.2, 0.6],
            "h": [0.3, 0.6, 0.9],
        }
    )
    # tasks: a 0.3 [0.15, 0.45], b 0.7 [0.6, 0.9]
    mean = mean_over_tasks(frame, "v", "l", "h")
    assert mean.value == pytest.approx(0.5)
    assert mean.low == pytest.approx(0.5 - math.sqrt(0.15**2 + 0.1**2) / 2)
    assert mean.high == pytest.approx(0.5 + math.sqrt(0.15**2 + 0.2**2) / 2)
    assert mean.cells == 3


def test_methods_are_compared_over_the_same_cells() -> None:
    rows = [*pair("digits", 0.4, 0.2), *pair("letters", 0.8, math.nan)]
    summary = tiny(rows)
    means = risk_table(average_over_seeds(summary.results), axes_of(summary))["expert", E4, "relative"]
    assert means["ties"].value == pytest.approx(0.5)  # letters left out: dare has no value there
    assert means["dare"].value == pytest.approx(0.25)
    assert means["ties"].cells == 1


def test_relative_asr_of_a_method_is_a_ratio_of_means() -> None:
    """On letters the surrogate is hardly ever fooled: a mean of ratios would be carried by it."""
    rare = {"surrogate_asr": 0.0125, "images_both_fooled": 0}
    rows = [*pair("digits", 0.4, 0.2), *(row | rare for row in pair("letters", 0.1, 0.05))]
    summary = tiny(rows)
    axes, cells = axes_of(summary), average_over_seeds(summary.results)
    means = risk_table(cells, axes)["expert", E4, "relative"]
    assert means["ties"].value == pytest.approx(0.5 / 0.8125)
    assert mean_of_ratios(cells[cells["target"] == "ties"]) == pytest.approx((0.5 + 8) / 2)
    assert list(carried_by_few(cells, axes, "expert", E4).items()) == [
        ("ties", (pytest.approx(0.5 / 0.8125), pytest.approx(4.25))),
        ("dare", (pytest.approx(0.25 / 0.8125), pytest.approx(2.125))),
    ]
    assert "ties (425%, not 62%) and dare" in view_of(summary).carried()
    assert view_of(tiny(pair("digits", 0.4, 0.2))).carried() == ""
    # a surrogate that is never fooled on one task adds to the numerator alone
    never = tiny(
        [*pair("digits", 0.4, 0.2), *(row | rare | {"surrogate_asr": 0.0} for row in pair("letters", 0.1, 0.05))]
    )
    means = risk_table(average_over_seeds(never.results), axes_of(never))["expert", E4, "relative"]
    assert means["ties"].value == pytest.approx(0.5 / 0.8)


def test_overview_counts_saturation_and_pairs_apart() -> None:
    rows = [*pair("digits", 0.2, 0.6, epsilon=E4), *pair("digits", 0.5, 0.52, epsilon=E8)]
    rows += [result_row(task="letters", target=t, asr=1.0, surrogate_asr=1.0, relative_asr=1.0, asr_low=0.96,
                        asr_high=1.0, epsilon=E8) for t in ("ties", "dare")]  # fmt: skip
    summary = tiny(rows)
    axes, cells = axes_of(summary), average_over_seeds(summary.results)
    four, eight = budget_overview(cells, axes, "expert", summary.standings)
    assert (four.pairs_apart, four.pairs, four.saturated) == (1, 1, 0.0)
    assert four.mean_asr == pytest.approx(0.4)
    assert (eight.pairs_apart, eight.pairs, eight.saturated) == (0, 1, 0.5)


SAFEST = "Which is the safest for the accuracy I need?"


def test_answers_name_a_clear_leader() -> None:
    """ties is fooled less, dare is more accurate by far: within two points of it there is nobody else."""
    found = findings_of(tiny([*pair("digits", 0.2, 0.6), *pair("letters", 0.2, 0.6)]))
    headline, sentence, _ = found["How often is a merge fooled?"]
    assert headline == "20% to 60%"
    assert "at most 4 of 255 grey levels" in sentence
    # of two tasks 0.05 each: 0.05/√2 of the mean; 80 images count in each
    assert "ties, 20.0% [16.5, 23.5] of 160; most often dare, 60.0% [56.5, 63.5] of 160" in sentence
    headline, sentence, clear = found[SAFEST]
    assert (headline, clear) == ("dare", True)
    assert (
        "60.0% [56.5, 63.5] of 160; clean accuracy 90.0% [87.9, 92.1]. It can be told apart from every other."
        in sentence
    )
    assert "Safer for less accuracy: ties, 20.0% [16.5, 23.5] of 160; clean accuracy 70.0%" in sentence


def test_answers_say_when_an_order_may_be_chance() -> None:
    found = findings_of(tiny([*pair("digits", 0.400, 0.405), *pair("letters", 0.4, 0.41)]))
    _, sentence, clear = found[SAFEST]
    assert not clear
    assert "may be chance" in sentence
    headline, _, clear = found["At which budget can methods be told apart?"]
    assert (headline, clear) == ("At none", False)


ROWS = [
    row
    for task in ("digits", "letters")
    for row in (*pair(task, 0.2, 0.6), *pair(task, 0.1, 0.3, surrogate="pretrained"))
]
INGREDIENTS = [
    result_row(task=task, target=target, surrogate=surrogate, asr=asr, asr_low=asr - 0.05, asr_high=asr + 0.05)
    for task in ("digits", "letters")
    for target, surrogate, asr in (("expert", "pretrained", 0.1), ("pretrained", "expert", 0.4))
]


@pytest.mark.parametrize(
    ("gap", "expert", "base", "headline", "said"),
    [
        (0.05, 0.1, 0.4, "Riskier than its experts", "every merge more often. The base is fooled on 40.0% [36.5, 43.5] of 160 images; ties less"),
        (0.05, 0.7, 0.8, "Safer than its experts and its base", "every merge less often. The base is"),
        (0.05, 0.1, 0.15, "Riskier than its experts and its base", "every merge more often. The base is"),
        (0.05, 0.1, 0.9, "Riskier than its experts; safer than its base", "every merge more often. The base is"),
        (0.95, 0.1, 0.4, "Not told apart", "no merge can be told apart from it. The base is"),
        (0.25, 0.3, 0.4, "It depends on the method", "dare more often, ties cannot be told apart from it. The base is fooled on 40.0% [36.5, 43.5] of 160 images; no"),
    ],
)  # fmt: skip
def test_merges_beside_what_they_were_made_of(
    gap: float, expert: float, base: float, headline: str, said: str
) -> None:
    rows = [
        *ROWS,
        *(row | {"asr": asr, "asr_low": asr - 0.05, "asr_high": asr + 0.05}
          for row in INGREDIENTS for asr in [expert if row["target"] == "expert" else base]),
    ]  # fmt: skip
    beside = standing({"ties": 0.2, "dare": 0.6, "expert": expert, "pretrained": base}, gap=gap)
    found = findings_of(tiny(rows, beside_ingredients=(beside,)))["Is a merge safer than what it was made of?"]
    assert found[0] == headline
    assert f"Experts are fooled on {100 * expert:.1f}% [" in found[1]
    assert said in found[1]


def test_verdict_says_that_saturated_budgets_rank_nothing() -> None:
    always = {"asr": 1.0, "asr_low": 0.97, "asr_high": 1.0, "surrogate_asr": 1.0, "relative_asr": 1.0}
    pairs = [(task, target) for task in ("digits", "letters") for target in ("ties", "dare")]
    full = [result_row(task=task, target=target, **always) for task, target in pairs]
    sentence = findings_of(tiny(full))["At which budget can methods be told apart?"][1]
    assert "saturated at ε = 4/255 (100%)" in sentence


def test_verdict_with_one_method_compares_nothing() -> None:
    found = findings_of(tiny([result_row()]))
    _, sentence, clear = found[SAFEST]
    assert not clear
    assert "only one" in sentence
    headline, sentence, _ = found["How often is it fooled?"]
    assert headline == "40%"
    assert "made on the task’s own expert: 40.0% [30.0, 51.0] of 80" in sentence


def test_a_white_box_method_is_not_ranked() -> None:
    rows = pair("digits", 0.4, 0.2, surrogate="dare")
    summary = tiny(rows)
    axes, cells = axes_of(summary), average_over_seeds(summary.results)
    (row,) = budget_overview(cells, axes, "dare", summary.standings)
    assert row.pairs == 0
    assert row.mean_asr == pytest.approx(0.4)


def test_leader_with_equal_means_has_rivals() -> None:
    mean = Mean(0.5, 0.5, 0.5, 1)
    found = leader({"a": mean, "b": mean}, lowest=True)
    assert found is not None
    assert found.rivals == ("b",)
    assert not found.clear


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], math.nan),
        ([1.0, 3.0], 2.0),
        ([-math.inf, 3.0], -math.inf),
        ([3.0, math.inf], 3.0),
        ([math.inf, math.inf], math.inf),
        ([-math.inf, 1.0, math.inf], 1.0),
    ],
)
def test_censored_median(values: list[float], expected: float) -> None:
    assert censored_median(values) == pytest.approx(expected, nan_ok=True)


def test_epsilon50_table_keeps_censored_values() -> None:
    frame = pd.DataFrame(
        [
            ("digits", "fgsm", "expert", "ties", 0, math.nan, "below_smallest", 0.0, E2),
            ("letters", "fgsm", "expert", "ties", 0, E4, "measured", E2, E8),
            ("digits", "fgsm", "expert", "dare", 0, math.nan, "not_reached", E8, math.inf),
            ("letters", "fgsm", "expert", "dare", 0, math.nan, "no_images", math.nan, math.nan),
        ],
        columns=list(EPSILON50_COLUMNS),
    )
    axes = axes_of(tiny([*pair("digits", 0.4, 0.4), *pair("letters", 0.4, 0.4, epsilon=E8)], epsilon50=frame))
    table = epsilon50_table(frame, axes)
    grid = (E2, E4, E8)
    assert epsilon50_text(table["expert", "fgsm", "digits", "ties"].value, grid) == "<2/255"
    assert epsilon50_text(table["expert", ALL, "digits", "dare"].value, grid) == ">8/255"
    assert epsilon50_text(table["expert", ALL, "letters", "dare"].value, grid) == "–"
    assert epsilon50_text(table["expert", ALL, "letters", "ties"].value, grid) == "4.0/255"
    # of two curves, one below the smallest budget: the lower counts
    assert table["expert", ALL, ALL, "ties"].value == -math.inf
    assert table["expert", ALL, ALL, "dare"].curves == 1


def test_epsilon50_colours_run_from_risk_to_safety() -> None:
    grid = (E2, E4, E8)
    found = [epsilon50_bin(value, grid) for value in (-math.inf, E2, E4, E8, math.inf)]
    assert found == [BINS - 1, BINS - 2, BINS // 2, 1, 0]
    assert epsilon50_bin(math.nan, grid) is None


def test_accuracy_table_by_hand() -> None:
    summary = tiny(pair("digits", 0.4, 0.4))
    table = accuracy_table(summary.accuracy, axes_of(summary))
    rows = {row.model: row for row in table.rows}
    assert list(rows) == ["ties", "dare", "task’s own expert"]
    assert rows["ties"].mean.text == "70.0%"
    assert [cell.best for cell in rows["dare"].cells] == [True, True]
    assert rows["task’s own expert"].reference
    assert [cell.text for cell in rows["task’s own expert"].cells] == ["97.0%", "–"]
    assert "[77.0, 83.0]" in rows["ties"].cells[0].detail
    assert table.low == pytest.approx(0.6)


def test_cell_columns_round_and_index() -> None:
    summary = tiny(
        [*pair("digits", 1 / 3, 0.4), result_row(task="letters", surrogate_asr=0.0, images_both_fooled=0)]
    )
    axes = axes_of(summary)
    columns = cell_columns(average_over_seeds(summary.results), axes)
    assert columns["target"] == [axes.targets.index(name) for name in ("ties", "dare", "ties")]
    assert columns["asr"][0] == 0.333333
    assert columns["relative_asr"][2] is None
    assert columns["relative_asr_low"][2] is None


def test_formatting() -> None:
    assert percent(0.426) == "43%"
    assert percent(math.nan) == "–"
    assert interval(0.41, 0.47) == "[41, 47]"
    assert interval(math.nan, 0.47) == ""
    assert interval(0.41, math.inf) == "[41, ∞)"
    assert budget(0.5 / 255) == "0.5/255"
    assert budget(16 / 255) == "16/255"
    assert [duration(s) for s in (0.42, 59.7, 200, 4321)] == ["0.4 s", "1 min 0 s", "3 min 20 s", "1 h 12 min"]
    assert listing(["a", "b", "c", "d", "e"]) == "a, b, c and 2 others"
    assert listing(["a", "b", "c", "d"]) == "a, b, c and d"
    assert [colour_bin(v, 0, 1) for v in (-1, 0, 0.5, 1, 9)] == [0, 0, 5, 10, 10]
    assert colour_bin(math.nan, 0, 1) is None


def test_missing_columns_are_named() -> None:
    with pytest.raises(UserError, match=r"summary\.flags lacks columns reason"):
        tiny([result_row()], flags=pd.DataFrame(columns=[c for c in FLAG_COLUMNS if c != "reason"]))


def test_axes_is_plain_data() -> None:
    assert Axes((), (), (), (), (), ()).epsilons == ()


def test_steps_table_has_a_column_per_number_of_steps() -> None:
    kept = [
        result_row(attack=attack, target=target, steps=steps, asr=asr, surrogate_asr=2 * asr)
        for attack, target, steps, asr in [
            ("fgsm", "ties", 1, 0.1), ("fgsm", "dare", 1, 0.3), ("fgsm", "ties", 10, 0.4),
            ("fgsm", "expert", 10, 0.9), ("mi", "ties", 10, 0.5),
        ]
    ]  # fmt: skip
    summary = tiny([result_row(target="ties"), result_row(target="dare")], by_step=pd.DataFrame(kept))
    table = step_table(summary.by_step, axes_of(summary), "expert", E4)
    assert table.steps == (1, 10)
    found = {
        attack: {steps: (cell.surrogate.value, cell.target.value) for steps, cell in cells.items()}
        for attack, cells in table.rows.items()
    }
    assert found["fgsm"] == {1: pytest.approx((0.4, 0.2)), 10: pytest.approx((0.8, 0.4))}
    assert found["mi"] == {10: pytest.approx((1.0, 0.5))}
    cell = table.rows["fgsm"][10]  # one method; 80 images count
    assert (cell.fooled, cell.images) == ("40.0% [30.0, 51.0]", "80")
    assert step_table(summary.by_step, axes_of(summary), "pretrained", E4).rows == {}


def test_the_worst_attacker_is_another_for_another_model() -> None:
    """Weights of tasks are equal; a surrogate that is merged, or is the model itself, is no attacker from outside."""
    rows = [
        *pair("digits", 0.4, 0.7),
        *pair("letters", 0.6, 0.1, images_both_correct=60),
        *pair("digits", 0.3, 0.9, surrogate="pretrained"),
        *pair("letters", 0.3, 0.9, surrogate="pretrained"),
        *pair("digits", 0.99, 0.99, surrogate="ties"),
        *pair("letters", 0.99, 0.99, surrogate="ties"),
        *(result_row(task=task, target="expert", asr=0.9) for task in ("digits", "letters")),
        *(
            result_row(task=task, target="expert", asr=0.2, surrogate="pretrained")
            for task in ("digits", "letters")
        ),
    ]
    found = view_of(tiny(rows)).worst
    assert {target: worst.surrogate for target, worst in found.items()} == {
        "ties": "expert",
        "dare": "pretrained",
        "expert": "pretrained",
    }
    assert found["ties"].asr.value == pytest.approx(0.5)
    assert found["ties"].relative.value == pytest.approx(0.5 / 0.8)
    assert found["ties"].images == result_row()["images_both_correct"] + 60  # type: ignore[operator]
    assert found["expert"].asr.value == pytest.approx(0.2)
    found_standing = view_of(tiny(rows)).standing
    assert found_standing is not None
    # what is drawn and ranked has the same rates
    assert {m.name: m.value for m in found_standing.methods} == {
        name: pytest.approx(found[name].asr.value) for name in ("ties", "dare")
    }
    merged_only = [row for row in rows if row["surrogate"] == "ties"]
    assert {t: w.surrogate for t, w in view_of(tiny(merged_only)).worst.items()} == {"dare": "ties"}


def test_settings_of_the_worst_attacker_are_those_that_methods_are_compared_on() -> None:
    rows = [
        *pair("digits", 0.4, 0.7), *pair("digits", 0.3, 0.9, surrogate="pretrained"),
        *pair("digits", 0.5, 0.5, surrogate="ties"),
    ]  # fmt: skip
    summary = tiny(rows)
    chosen = summary.results[under_the_worst(summary, summary.results)]
    assert list(zip(chosen["surrogate"], chosen["target"], strict=True)) == [
        ("expert", "ties"),
        ("pretrained", "dare"),
    ]


def test_a_pair_whose_order_turns_is_turned() -> None:
    before = standing({"ties": 0.2, "dare": 0.6})
    worst = view_of(tiny([*pair("digits", 0.7, 0.3), *pair("letters", 0.7, 0.3)])).worst
    found = rated(before, worst)
    (after,) = found.pairs
    assert [method.name for method in found.methods] == ["dare", "ties"]
    assert (after.first, after.second, after.difference) == ("dare", "ties", pytest.approx(-0.4))
    assert (after.low, after.high) == (-before.pairs[0].high, -before.pairs[0].low)


def test_attackers_have_words() -> None:
    assert [holder(name) for name in ("pretrained", "expert", "expert/digits", "merged", "ties", "our-model")] == [
        "the pretrained base", "the task’s own expert", "the expert of digits", "the merged model", "ties", "our-model"
    ]  # fmt: skip
    assert change(1 / 255, "linf") == "a change of at most 1 of 255 grey levels at any pixel"
    assert change(0.5, "l2") == "a change of an L2 length of at most 128/255"


def test_the_first_picture_is_to_scale_and_tells_images_and_attackers() -> None:
    picture = threat_picture(view_of(tiny([*ROWS, *INGREDIENTS])))
    assert picture is not None
    assert [row.model for row in picture.rows] == ["ties", "dare", "task’s own expert", "pretrained base"]
    assert [text for _, text in picture.ticks] == ["0%", "25%", "50%", "75%"]
    ties = picture.rows[0]
    assert (ties.asr, ties.asr_interval, ties.images, ties.attacker) == (
        "20.0%", "[16.5, 23.5]", 160, "the task’s own expert"
    )  # fmt: skip
    assert ties.at == pytest.approx(100 * 0.2 / 0.75, abs=0.01)
    assert picture.marks == ((13.33, "task’s own expert"), (53.33, "pretrained base"))
    assert [row.best for row in picture.rows] == [True, True, False, False]
