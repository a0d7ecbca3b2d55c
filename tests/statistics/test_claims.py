"""Claims judged: on the poster's table, on made-up studies whose truth is known, and as files people write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as t_distribution
from scipy.stats import ttest_1samp

from mergerisk.errors import UserError
from mergerisk.report.claim_words import reason, verdict_to_dict
from mergerisk.report.fact_words import figure, said
from mergerisk.statistics import (
    BUILT_IN,
    AttackerAnswer,
    ClaimVerdict,
    ExtremeClaim,
    PairedClaim,
    RateClaim,
    Tables,
    TrendClaim,
    compare_targets,
    judge_claims,
    load_claims,
    parse_claims,
    poster_tables,
    rate_table,
    saturation,
    tables_from_outcomes,
    tables_from_rates,
)
from mergerisk.statistics.attackers import worst_attacker
from tests.statistics.made_up import METHODS, outcomes

if TYPE_CHECKING:
    from pathlib import Path

CHANCES = {"weight_averaging": 0.6, "ties": 0.5, "weight_averaging+surgery": 0.4, "ties+surgery": 0.3}
ACCURACY = {"weight_averaging": 0.7, "ties": 0.8, "weight_averaging+surgery": 0.9, "ties+surgery": 1.0}


@pytest.fixture(scope="module")
def study() -> Tables:
    """Surgery lowers ASR, and the more accurate a method, the less it is fooled."""
    return tables_from_outcomes(outcomes(CHANCES, accuracy=ACCURACY, images=120, shared=0.5))


def by_name(verdicts: tuple[ClaimVerdict, ...]) -> dict[str, ClaimVerdict]:
    return {verdict.name: verdict for verdict in verdicts}


def figures(verdict: ClaimVerdict | AttackerAnswer) -> dict[str, str]:
    return dict(map(figure, verdict.figures))


def cautions(verdict: ClaimVerdict) -> list[str]:
    return [said(caution) for caution in verdict.cautions]


def of(verdict: ClaimVerdict, attacker: str) -> AttackerAnswer:
    return next(part for part in verdict.attackers if part.attacker == attacker)


def test_the_posters_figures_and_what_they_establish() -> None:
    found = by_name(judge_claims(poster_tables()))
    delta, surgery, surrogate = (found[f"poster_{name}"] for name in ("delta", "surgery", "surrogate"))
    published = of(delta, "pooled")
    assert figures(published)["settings at or below 0"] == "46 of 48"
    assert published.effect is not None
    assert published.effect.value == pytest.approx(-14.60, abs=0.005)
    assert figures(published)["mean with settings above 0 counted as 0"] == "-14.91 points"
    assert published.answer == "supported"
    # The worst of the two attackers, and the fine-tuned model alone, leave the claim open.
    assert (delta.attacker, delta.answer) == ("worst attacker", "inconclusive")
    assert [(part.attacker, part.answer) for part in delta.attackers] == [
        ("finetuned", "inconclusive"), ("pretrained", "supported"), ("pooled", "supported"),
    ]  # fmt: skip
    rates = poster_tables().rates
    merges = rates[(rates["target_role"] == "merge") & rates["surrogate_role"].isin(["expert", "pretrained"])]
    worst = merges.loc[merges.groupby(["task", "attack", "target"])["asr_all"].idxmax()]
    assert delta.effects[0].value == pytest.approx(worst["delta_asr_all"].mean())
    assert figures(of(surgery, "pooled"))["pairs at or below 0"] == "15 of 24"
    assert surgery.answer == "inconclusive"
    assert surrogate.attackers == ()
    assert figures(surrogate)["mean difference over all targets, ingredients included"] == "+24.05 points"
    assert surrogate.answer == "supported"
    assert reason(found["stronger_more_vulnerable"]) == "Not tested: the data hold no clean_accuracy."
    assert all(verdict.intervals[0].over == "tasks" for verdict in (delta, surgery, surrogate))
    used = poster_tables().rates
    assert used.groupby("task")["images"].first().to_dict() == {"cars": 8041, "eurosat": 5400, "mnist": 10000}


def test_a_known_study_is_judged_as_it_was_made(study: Tables) -> None:
    found = by_name(judge_claims(study, resamples=300))
    assert found["stronger_more_vulnerable"].answer == "contradicted"  # made to fall
    assert found["stronger_more_vulnerable"].effects[0].value == pytest.approx(-0.1 / 0.8, abs=0.03)
    assert found["stronger_more_vulnerable"].effects[1].value < -0.8
    assert found["bias_mitigation"].answer == "contradicted"
    assert found["poster_surgery"].answer == "supported"
    assert found["poster_surgery"].effects[0].value == pytest.approx(-20, abs=4)
    assert found["averaging_worst"].answer == "supported"
    assert found["averaging_worst"].ranks is not None
    assert found["averaging_worst"].ranks.names[0] == "weight_averaging"
    assert found["no_robustness"].answer == "contradicted"
    # Surrogates do not matter to the targets' toughness.
    assert found["poster_surrogate"].answer == "inconclusive"
    low, high = (getattr(found["poster_surgery"].intervals[0], end) for end in ("low", "high"))
    assert low < found["poster_surgery"].effects[0].value < high < 0
    assert found["poster_surgery"].images is not None
    assert found["poster_surgery"].images.higher == 0


def test_clean_errors_count_in_one_denominator_only() -> None:
    """The method with more clean errors is no easier to fool, but of all images it gets more wrong."""
    chances = dict.fromkeys(("ties", "dare"), 0.5)
    made = outcomes(chances, accuracy={"ties": 0.5, "dare": 1.0}, images=200, shared=0.3, seed=2)
    claim = PairedClaim(
        name="ties", sentence="TIES is fooled more.", measure="asr", expect="higher",
        first={"target": "ties"}, second={"target": "dare"},
    )  # fmt: skip
    (verdict,) = judge_claims(tables_from_outcomes(made), [claim])
    assert verdict.answer == "inconclusive"
    assert verdict.denominators[0].measure == "asr_all"
    assert verdict.denominators[0].answer == "supported"
    assert "by asr_all it is supported" in cautions(verdict)
    (of_all,) = judge_claims(tables_from_outcomes(made), [claim.model_copy(update={"measure": "asr_all"})])
    assert (of_all.answer, of_all.denominators[0].measure) == ("supported", "asr")


def test_saturated_settings_are_marked_and_judged_on_epsilon50() -> None:
    """At every budget but the smallest both methods are fooled always; their curves cross one half apart."""
    epsilons = tuple(np.array([0.25, 1, 2, 4, 8, 16]) / 255)
    rows = [
        {
            "task": task, "attack": attack, "surrogate": "expert", "target": target, "epsilon": epsilon,
            "images": 100, "asr": asr, "surrogate_asr": 1.0,
        }
        for task in "abcdefgh" for attack in ("fgsm", "mi_fgsm")
        for target, rates in (("ties", [0.2, 0.9, 1, 1, 1, 1]), ("dare", [0.1, 0.7, 1, 1, 1, 1]))
        for epsilon, asr in zip(epsilons, rates, strict=True)
    ]  # fmt: skip
    tables = tables_from_rates(pd.DataFrame(rows))
    claim = PairedClaim(
        name="ties", sentence="TIES is fooled more.", expect="higher",
        first={"target": "ties"}, second={"target": "dare"}, where={"epsilon": [1 / 255, 2 / 255, 4 / 255]},
    )  # fmt: skip
    (verdict,) = judge_claims(tables, [claim])
    assert verdict.saturation is not None
    assert (verdict.saturation.cells, verdict.saturation.saturated) == (96, 64)
    assert verdict.epsilon50 is not None
    assert (verdict.epsilon50.units, verdict.epsilon50.answer) == (8, "supported")
    assert verdict.epsilon50.p_adjusted == pytest.approx(2 * 0.5**8)
    assert any(text.startswith("mostly saturated") for text in cautions(verdict))


def test_saturation_counts_both_ends() -> None:
    table = pd.DataFrame(
        {"asr": [1.0, 0.99, 0.98, 0.5, 0.01, 0.0, np.nan], "images_both_correct": [5, 100, 1000, 10, 1000, 3, 0]}
    )
    found = saturation(table, "both_correct")
    assert (found.cells, found.saturated, found.near_zero, found.mostly) == (6, 2, 2, True)


def test_censored_curves_are_tied_at_the_ends() -> None:
    """Above the largest budget nothing is known: pairs that both lie there are ties, not evidence."""
    rows = [
        {"task": task, "attack": "fgsm", "surrogate": "expert", "target": target, "epsilon": epsilon, "asr": asr}
        for task, ties, dare in (("a", 0.1, 0.2), ("b", 0.9, 0.8), ("c", 0.9, 0.1), ("d", 0.9, 0.4))
        for target, asr in (("ties", ties), ("dare", dare))
        for epsilon in (0.01, 0.02)
    ]
    claim = PairedClaim(
        name="ties", sentence="TIES is fooled more.", measure="asr", expect="higher",
        first={"target": "ties"}, second={"target": "dare"},
    )  # fmt: skip
    (verdict,) = judge_claims(tables_from_rates(pd.DataFrame(rows)), [claim])
    assert verdict.epsilon50 is not None
    assert said(verdict.epsilon50.effect.name) == "share fooled at a smaller budget, of pairs that differ (2 tie)"
    assert verdict.epsilon50.effect.value == 1


def test_blocks_without_a_method_are_left_out_and_said() -> None:
    made = outcomes(CHANCES, images=30)
    gone = (made["target"] == "ties") & (made["task"] == "maps")
    (verdict,) = judge_claims(
        tables_from_outcomes(made[~gone]), [BUILT_IN[3].model_copy(update={"measures": ("asr",)})]
    )
    assert (verdict.units, verdict.unit, verdict.rests_on) == (5, "tasks", 5 * 4 * 2 * 3)
    assert "18 of 138 settings lack a value and are left out" in cautions(verdict)


def test_neither_the_order_of_rows_nor_of_claims_matters(study: Tables) -> None:
    assert study.outcomes is not None
    shuffled = study.outcomes.sample(frac=1, random_state=1)
    one = by_name(judge_claims(study, resamples=200, seed=4))
    two = by_name(judge_claims(tables_from_outcomes(shuffled), BUILT_IN[::-1], resamples=200, seed=4))
    assert {name: verdict_to_dict(verdict) for name, verdict in one.items()} == {
        name: verdict_to_dict(verdict) for name, verdict in two.items()
    }
    other = by_name(judge_claims(study, resamples=200, seed=5))
    assert one["poster_surgery"].intervals[0] != other["poster_surgery"].intervals[0]


def test_rates_alone_give_the_same_tests_without_outcomes(study: Tables) -> None:
    assert study.outcomes is not None
    rates = rate_table(study.outcomes)
    lean = by_name(judge_claims(tables_from_rates(rates)))
    full = by_name(judge_claims(study, resamples=200))
    for name in ("stronger_more_vulnerable", "bias_mitigation", "poster_surgery"):
        for one, other in zip(lean[name].attackers, full[name].attackers, strict=True):
            assert one.effect is not None
            assert other.effect is not None
            assert one.p_value == pytest.approx(other.p_value)
            assert one.effect.value == pytest.approx(other.effect.value)
        assert [interval.over for interval in lean[name].intervals] == ["tasks"]
        assert [interval.over for interval in full[name].intervals] == ["images", "tasks"]


def test_two_targets_on_the_same_images_by_hand() -> None:
    made = outcomes(
        {"ties": 0.5, "dare": 0.4},
        tasks=["a"],
        attacks=["fgsm"],
        surrogates=["expert"],
        epsilons=[0.01],
        seeds=[0, 1],
        images=50,
    )
    found = compare_targets(tables_from_outcomes(made), "ties", "dare", resamples=100)
    for seed in (0, 1):
        ties, dare = (
            made[(made["target"] == name) & (made["seed"] == seed)]
            .sort_values("image")["target_adversarial"]
            .to_numpy()
            != 0
            for name in ("ties", "dare")
        )
        row = found.settings.set_index("seed").loc[seed]
        assert (row["images"], row["both"]) == (50, (ties & dare).sum())
        assert (row["only_first"], row["only_second"]) == ((ties & ~dare).sum(), (dare & ~ties).sum())
    both = found.settings
    expected = ((both["only_first"] - both["only_second"]) / 50).mean()
    assert found.differences["asr"] == pytest.approx(expected)


def test_seeds_are_a_level_of_the_bootstrap() -> None:
    """Seeds that differ widen the interval, though every one has many images."""
    made = outcomes({"ties": 0.5, "dare": 0.5}, seeds=[0, 1, 2], images=100)
    same = compare_targets(tables_from_outcomes(made), "ties", "dare").intervals["asr"]
    made.loc[(made["target"] == "ties") & (made["seed"] == 1), "target_adversarial"] = 2
    differing = compare_targets(tables_from_outcomes(made), "ties", "dare").intervals["asr"]
    assert differing.high - differing.low > 3 * (same.high - same.low)
    assert said(differing.how) == "bootstrap, seeds, images within tasks, 1000 resamples"


def test_equivalence_needs_both_ends() -> None:
    rows = [
        {"task": task, "attack": attack, "surrogate": "expert", "target": target, "asr": asr}
        for i, task in enumerate("abcdef")
        for j, attack in enumerate("uvw")
        for target, asr in (("ties", 0.5 + 0.001 * i), ("dare", 0.501 + 0.0007 * j))
    ]
    tables = tables_from_rates(pd.DataFrame(rows))

    def judged(margin: float, against: float = 0) -> str:
        claim = PairedClaim(
            name="same", sentence="They are the same.", measure="asr", expect="same", margin=margin, against=against,
            first={"target": "ties"}, second={"target": "dare"},
        )  # fmt: skip
        return judge_claims(tables, [claim])[0].answer

    assert judged(0.05) == "supported"
    assert judged(0.001) == "inconclusive"
    assert judged(0.05, against=0.2) == "contradicted"


def test_stated_orders_and_the_best() -> None:
    tables = tables_from_outcomes(outcomes(CHANCES, images=120, shared=0.5))
    rising = TrendClaim(name="rising", sentence="ASR rises.", measure="asr", order=METHODS[::-1])
    falling = TrendClaim(name="falling", sentence="ASR rises.", measure="asr", order=("ties", "ties+surgery"))
    best = ExtremeClaim(
        name="best", sentence="It is the safest.", kind="best", method="ties+surgery", measures=("asr",)
    )
    not_best = best.model_copy(update={"name": "not", "method": "ties"})
    half = RateClaim(name="half", sentence="Below one half.", measure="asr", expect="lower", against=0.9)
    found = by_name(judge_claims(tables, [rising, falling, best, not_best, half], correction="bh"))
    assert found["falling"].answer == "contradicted"
    assert found["best"].answer == "supported"
    assert found["not"].answer == "contradicted"
    assert found["half"].answer == "supported"
    assert found["half"].correction == "bh"


def test_clean_accuracies_are_counted_once(study: Tables) -> None:
    """They are the same under every attack, surrogate and budget: evidence of as many pairs as tasks and methods."""
    claims = parse_claims(
        {
            "claims": [
                {
                    "name": "pairs", "sentence": "Surgery is more accurate.", "kind": "paired", "expect": "higher",
                    "measure": "clean_accuracy", "first": {"correction": "surgery"}, "second": {"correction": "none"},
                },
                {"name": "trend", "sentence": "x", "kind": "trend", "measure": "clean_accuracy", "order": METHODS},
                {"name": "rate", "sentence": "x", "kind": "rate", "measure": "clean_accuracy", "expect": "higher", "against": 0},
            ]
        }
    )  # fmt: skip
    found = by_name(judge_claims(study, claims, resamples=100))
    assert {name: verdict.units for name, verdict in found.items()} == dict.fromkeys(found, 6)
    assert {name: found[name].rests_on for name in ("pairs", "rate")} == {"pairs": 12, "rate": 24}
    assert {verdict.attacker for verdict in found.values()} == {""}
    assert found["pairs"].answer == "supported"
    assert found["pairs"].effects[0].value == pytest.approx(20, abs=4)


def test_results_are_strict_json(study: Tables) -> None:
    text = json.dumps(
        [verdict_to_dict(verdict) for verdict in judge_claims(study, resamples=100)], allow_nan=False
    )
    (first, *_) = json.loads(text)
    assert first["name"] == "no_robustness"
    assert first["intervals"][0]["over"] == "images"


VALID: dict[str, Any] = {
    "name": "ties", "sentence": "TIES is fooled more.", "kind": "paired", "expect": "higher",
    "first": {"target": "ties"}, "second": {"target": "dare"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pair"}, "claims[0].kind: unknown kind 'pair' (did you mean 'paired'?)"),
        ({"first": {"targt": "ties"}}, "claims[0]: first: unknown column 'targt' (did you mean 'target'?)"),
        ({"measure": "relative_ars"}, "unknown measure 'relative_ars' (did you mean 'relative_asr'?)"),
        ({"expct": "higher"}, "claims[0]: expct: unknown field (did you mean 'expect'?)"),
        ({"expect": "same"}, "needs a margin above 0"),
        ({"test": "signed_rank"}, "leave test out for Student's t over tasks, or write signed_rank_over_tasks"),
        ({"test": "t"}, "unknown test 't'"),
        (
            {"kind": "best", "method": "ties", "block_by": ["task", "attack"]},
            "block_by: methods are ranked once per task, which is what is independent; leave it out",
        ),
        ({"where": {"target_role": "merged"}}, "unknown target_role 'merged' (did you mean 'merge'?)"),
        ({"where": {"epsilon": "two"}}, "must be a number or a fraction such as 8/255"),
        ({"first": {"task": "digits"}}, "pairs are of one task"),
        ({"pair_by": ["attack"]}, "must hold task"),
        ({"name": None}, "claims[0]: name: "),
    ],
)
def test_mistakes_in_a_file_of_claims(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_claims({"claims": [VALID | changes]})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_in_the_data_is_named_before_anything_is_computed(study: Tables) -> None:
    for changes, message in (
        ({"first": {"target": "tiess"}}, "claim 'ties': target 'tiess' is not in the data (did you mean 'ties'?)"),
        ({"where": {"epsilon": "3/255"}}, "epsilon 3/255 is not in the data (it has: 2/255, 4/255, 8/255)"),
    ):
        claims = parse_claims({"claims": [VALID | {"second": {"target": "ties+surgery"}} | changes]})
        with pytest.raises(UserError) as caught:
            judge_claims(study, claims)
        assert message in str(caught.value)


def test_a_file_includes_built_in_claims(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(
        "include: [poster_delta]\nclaims:\n  - {name: low, sentence: Low., kind: rate, measure: asr_all, "
        "expect: lower, against: 0.9, where: {attack: [FGSM, TI-FGSM]}}\n"
    )
    assert [claim.name for claim in load_claims(path)] == ["poster_delta", "low"]
    found = by_name(judge_claims(poster_tables(), load_claims(path)))
    assert of(found["low"], "pooled").rests_on == 3 * 2 * 2 * 2
    assert [claim.name for claim in parse_claims({"include": ["all"]})] == [claim.name for claim in BUILT_IN]
    with pytest.raises(UserError, match="did you mean 'poster_delta'"):
        parse_claims({"include": ["poster_deltas"]})
    with pytest.raises(UserError, match="names no claim"):
        parse_claims({})
    with pytest.raises(UserError, match="given twice"):
        parse_claims({"claims": [VALID, VALID]})


def rates_of(
    asr: list[list[float]], own: list[list[float]], target: str = "ties", **more: object
) -> list[dict[str, object]]:
    """Rows of a table of rates: tasks × settings."""
    return [
        {
            "task": f"task{t}", "attack": f"attack{a}", "surrogate": "expert", "target": target, "images": 100,
            "asr": rate, "surrogate_asr": own[t][a],
        } | more
        for t, rates in enumerate(asr) for a, rate in enumerate(rates)
    ]  # fmt: skip


def test_relative_asr_of_settings_is_a_ratio_of_means() -> None:
    """In one setting the surrogate is hardly fooled, in another never: the mean of ratios says the opposite."""
    asr = [[0.5, 0.3], [0.6, 0.2], [0.7, 0.1]]
    own = [[0.9, 0.02], [0.8, 0.4], [0.9, 0.0]]
    claim = RateClaim(name="r", sentence="s", measure="relative_asr", expect="lower", against=1)
    (verdict,) = judge_claims(tables_from_rates(pd.DataFrame(rates_of(asr, own))), [claim])
    a, s = np.array(asr), np.array(own)
    ratio = a.sum() / s.sum()
    assert verdict.effects[0].value == pytest.approx(ratio)
    assert (verdict.units, verdict.unit, verdict.rests_on, verdict.left_out) == (3, "tasks", 6, 0)
    assert float(figures(verdict)["mean of the settings' own ratios"]) == pytest.approx(
        np.mean([x / y for x, y in zip(a.ravel(), s.ravel(), strict=True) if y]), abs=5e-4
    )
    assert any("carried by few" in caution for caution in cautions(verdict))
    # t over tasks of a − 1·s, whose mean is 0 exactly if the ratio of means is 1
    means = (a - s).mean(axis=1)
    assert verdict.statistic == pytest.approx(ttest_1samp(means, 0).statistic)
    assert verdict.p_value == pytest.approx(ttest_1samp(means, 0).pvalue)
    # the linearised ratio: the spread over tasks of (a − R s) / mean s
    spread = ((a - ratio * s) / s.mean()).mean(axis=1)
    reach = t_distribution.isf(0.025, 2) * spread.std(ddof=1) / np.sqrt(3)
    interval = verdict.intervals[0]
    assert (interval.low, interval.high) == pytest.approx((ratio - reach, ratio + reach))


def test_paired_relative_asr_is_a_difference_of_ratios_of_means() -> None:
    own = [[0.9, 0.02, 0.5], [0.8, 0.4, 0.5], [0.9, 0.1, 0.6]]
    first, second = (
        [[0.5, 0.1, 0.2], [0.6, 0.2, 0.3], [0.7, 0.1, 0.3]],
        [[0.6, 0.05, 0.3], [0.7, 0.3, 0.4], [0.8, 0.1, 0.5]],
    )
    rows = [*rates_of(first, own, "ties+surgery"), *rates_of(second, own, "ties")]
    claim = PairedClaim(
        name="p", sentence="s", measure="relative_asr", expect="lower",
        first={"correction": "surgery"}, second={"correction": "none"},
    )  # fmt: skip
    (verdict,) = judge_claims(tables_from_rates(pd.DataFrame(rows)), [claim])
    expected = (np.sum(first) - np.sum(second)) / np.sum(own)
    assert verdict.effects[0].value == pytest.approx(expected)
    assert said(verdict.effects[0].name) == "difference of ratios of mean ASRs"
    by_itself = np.mean((np.array(first) - np.array(second)) / np.array(own))
    assert by_itself > 0 > expected
    assert float(figures(verdict)["mean of the pairs' own differences"]) == pytest.approx(by_itself, abs=5e-4)


def test_the_bootstrap_of_a_ratio_of_means_has_its_spread() -> None:
    """One task, one setting: the ratio's delta-method variance over images."""
    made = outcomes(
        {"ties": 0.4},
        tasks=("digits",),
        attacks=("fgsm",),
        surrogates=("expert",),
        epsilons=(4 / 255,),
        images=400,
        shared=0.0,
    )
    more = outcomes(
        {"ties": 0.4},
        tasks=("letters",),
        attacks=("fgsm",),
        surrogates=("expert",),
        epsilons=(4 / 255,),
        images=400,
        shared=0.0,
        seed=1,
    )
    both = pd.concat([made.astype({"task": str}), more.astype({"task": str})], ignore_index=True)
    claim = RateClaim(name="r", sentence="s", measure="relative_asr", expect="lower", against=1)
    (verdict,) = judge_claims(tables_from_outcomes(both), [claim])
    chosen = both[both["target"] == "ties"]
    x, y = (chosen[name].to_numpy() != 0 for name in ("target_adversarial", "surrogate_adversarial"))
    ratio = x.mean() / y.mean()
    error = np.std(x - ratio * y) / y.mean() / np.sqrt(len(x))
    interval = verdict.intervals[0]
    assert interval.over == "images"
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert interval.low < ratio < interval.high


def test_white_boxes_enter_no_claim_that_names_no_target() -> None:
    made = outcomes(CHANCES, images=40)
    white = (
        outcomes(CHANCES, images=40, surrogates=("expert",)).astype({"surrogate": str}).assign(surrogate="ties")
    )
    tables = tables_from_outcomes(
        pd.concat([made.astype({"surrogate": str}), white], ignore_index=True), merges=METHODS
    )
    held = RateClaim(
        name="r", sentence="s", measure="asr", expect="lower", against=1, where={"surrogate": "ties"}
    )  # fmt: skip
    (verdict,) = judge_claims(tables, [held])
    settings = tables.rates[(tables.rates["surrogate"] == "ties") & (tables.rates["target_role"] == "merge")]
    assert verdict.rests_on == (settings["target"] != "ties").sum()
    assert verdict.effects[0].value == pytest.approx(
        100 * settings.loc[settings["target"] != "ties", "asr"].mean()
    )


def opposite(tasks: int = 6, images: int = 100) -> Tables:
    """From the expert merges are fooled 10 points more often than the expert is, from the base 30 less."""
    rows = []
    for t in range(tasks):
        for surrogate, own, asr in (("expert", 0.6, 0.7), ("pretrained", 0.9, 0.6)):
            for place in range(images):
                # toughness in a different order for either model
                fooled, own_fooled = (place * 37 + 11 * t) % images < asr * images, place % images < own * images
                rows += [
                    {
                        "task": f"t{t}", "attack": "fgsm", "surrogate": surrogate, "target": target, "epsilon": 0.01,
                        "seed": 0, "steps": 1, "image": place, "label": 0, "surrogate_clean": 0, "target_clean": 0,
                        "surrogate_adversarial": int(own_fooled), "target_adversarial": int(fooled),
                        "aimed_at": -1, "l2": 1.0, "linf": 0.01, "zero_gradients": 0,
                    }
                    for target in ("ties", "dare")
                ]  # fmt: skip
    return tables_from_outcomes(pd.DataFrame(rows))


def test_a_claim_is_judged_for_each_attacker_and_the_worst_decides() -> None:
    """The kind of case that was pooled: −10 points on average, which is true of no attacker."""
    claim = next(claim for claim in BUILT_IN if claim.name == "poster_delta")
    (verdict,) = judge_claims(opposite(), [claim], resamples=300)
    assert of(verdict, "pooled").answer == "supported"
    assert of(verdict, "pretrained").answer == "supported"
    assert of(verdict, "expert").answer == "contradicted"
    assert (verdict.attacker, verdict.answer) == ("worst attacker", "contradicted")
    assert verdict.chosen[0][0] == "expert"
    values = {part.attacker: part.effect.value for part in verdict.attackers if part.effect}
    assert values == pytest.approx({"expert": 10, "pretrained": -30, "pooled": -10})
    start = "attackers disagree: pretrained (-30.00 points) the claimed way, expert (+10.00 points) the other way"
    assert any(caution.startswith(start) for caution in cautions(verdict))
    assert verdict.unit == "tasks"
    assert verdict.p_value == pytest.approx(2 * 0.5**6, abs=0.03)


def test_of_a_single_task_the_images_are_tested() -> None:
    claim = next(claim for claim in BUILT_IN if claim.name == "poster_delta")
    tables = opposite(tasks=1)
    (verdict,) = judge_claims(tables, [claim], resamples=300)
    assert (verdict.unit, verdict.units, verdict.test) == ("images", 100, "bootstrap")
    assert "over 100 images of one task" in reason(verdict)
    assert "one task, whose images are tested: little can be said of others" in cautions(verdict)
    assert 1 / 301 <= verdict.p_value <= 1
    assert of(verdict, "pretrained").answer == "supported"
    (bare,) = judge_claims(tables_from_rates(tables.rates), [claim])
    assert (bare.test, bare.answer) == ("", "inconclusive")
    assert "rates alone leave nothing independent to test on" in reason(bare)
    (of_one,) = judge_claims(
        tables, [claim.model_copy(update={"where": {"surrogate": ("expert",)}})], resamples=300
    )
    assert (of_one.attacker, of_one.attackers, of_one.answer) == ("expert", (), "inconclusive")


def test_the_worst_attacker_is_chosen_on_other_images_than_it_is_judged_on() -> None:
    """Two surrogates that fool disjoint halves of the images: the larger of two noisy rates lies above both
    truths; a choice made on other images does not."""
    random = np.random.default_rng(0)
    high, chosen = [], []
    for seed in range(40):
        made = outcomes({"ties": 0.5}, seed=seed, tasks=["a"], attacks=["fgsm"], epsilons=[0.01], images=40)
        ties = (made["target"] == "ties").to_numpy()
        made.loc[ties, "target_adversarial"] = 2 * (random.uniform(size=int(ties.sum())) < 0.5).astype(int)
        tables = tables_from_outcomes(made)
        rows = (tables.rates["target"] == "ties").to_numpy()
        high.append(tables.rates.loc[rows, "asr"].max())
        worst = worst_attacker(tables, rows, seed)
        assert worst.spread == pytest.approx(np.sqrt(2)) or abs(np.diff(tables.rates.loc[rows, "asr"])[0]) > 0.2
        chosen.append(float(worst.tables.rates["asr"].iloc[0]))
    error = 0.5 / np.sqrt(40 * 40)
    assert np.mean(high) > 0.5 + 2 * error
    assert abs(np.mean(chosen) - 0.5) < 4 * error


def test_a_clear_worst_attacker_is_that_attacker() -> None:
    tables = opposite()
    rows = (tables.rates["target"] == "ties").to_numpy()
    worst = worst_attacker(tables, rows, 0)
    only = tables.rates[rows & (tables.rates["surrogate"] == "expert").to_numpy()]
    assert worst.tables.rates["asr"].mean() == pytest.approx(only["asr"].mean(), abs=0.06)
    assert set(worst.tables.rates["surrogate"]) == {"the worst of expert, pretrained"}
    assert len(worst.tables.rates) == 6


def test_built_in_claims_rest_on_the_published_surrogates() -> None:
    for claim in BUILT_IN:
        named = {column: values for part in claim.filters for column, values in part.items()}
        assert "surrogate_role" in named, claim.name
    found = by_name(judge_claims(tables_from_outcomes(outcomes(CHANCES)), resamples=100))
    assert said(found["poster_delta"].compared).endswith("attacks made on the worst of expert, pretrained")
    assert "attacks made on" not in said(found["poster_surrogate"].compared)  # they are what is compared
