"""Verdicts on outcomes that were written down by hand."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from mergerisk.audit import Audit, judge
from mergerisk.audit.page import to_html
from mergerisk.audit.readings import read_outcomes
from mergerisk.audit.sentences import banner, findings, headline, made_of, safer_than_ingredients
from mergerisk.audit.verdict import check_gates
from mergerisk.audit.writing import to_json, to_markdown, to_text
from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.audit import Verdict

EPSILONS = (1 / 255, 2 / 255)


def rows(
    target: str, surrogate: str, attack: str, fooled: Mapping[float, int], *, images: int = 100, wrong: int = 0
) -> list[dict[str, Any]]:
    """At each budget the first so many images fool the target; the surrogate is fooled on the first half. ``wrong``
    images at the end are wrong when clean."""
    return [
        {
            "task": "t",
            "attack": attack,
            "surrogate": surrogate,
            "target": target,
            "epsilon": epsilon,
            "seed": 0,
            "image": image,
            "label": 0,
            "surrogate_clean": 0,
            "target_clean": int(image >= images - wrong),
            "surrogate_adversarial": int(image < images // 2),
            "target_adversarial": int(image < count or image >= images - wrong),
            "aimed_at": -1,
            "l2": 0.0,
            "zero_gradients": 0,
        }
        for epsilon, count in fooled.items()
        for image in range(images)
    ]


def outcomes() -> pd.DataFrame:
    low, high = EPSILONS
    return pd.DataFrame(
        [
            *rows("ties", "a", "weak", {low: 5, high: 10}),
            *rows("ties", "a", "strong", {low: 40, high: 80}),
            *rows("ties", "pretrained", "weak", {low: 1, high: 4}),
            *rows("ties", "pretrained", "strong", {low: 2, high: 3}),
            *rows("ties", "ties", "strong", {low: 90, high: 100}),
            *rows("average", "a", "strong", {low: 30, high: 70}, wrong=20),
            *rows("average", "a", "weak", {low: 3, high: 7}, wrong=20),
            *rows("average", "pretrained", "strong", {low: 3, high: 6}),
            *rows("average", "pretrained", "weak", {low: 3, high: 6}),
        ]
    )


def accuracy(**shares: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "task": "t",
                "model": model,
                "seed": 0,
                "images": 100,
                "accuracy": a,
                "low": a - 0.05,
                "high": a + 0.05,
            }
            for model, a in shares.items()
        ]
    )


def audit(**changes: Any) -> Audit:
    content: dict[str, Any] = {
        "base": "starter-vit",
        "ingredients": {"a": "a.safetensors"},
        "candidates": ["ties", {"method": "weight_averaging", "label": "average"}],
        "images": {"t": "digits"},
        "scenarios": ["ingredients", "pretrained", "merged"],
        "attacks": [{"attack": "fgsm", "label": "weak"}, {"attack": "mi_fgsm", "label": "strong"}],
        "budgets": {"epsilon": list(EPSILONS)},
    }
    return Audit(**content | changes)


def verdict(*gates: str, ties: float = 0.8, average: float = 0.8, **changes: Any) -> Verdict:
    return judge(audit(fail_if=gates, **changes), outcomes(), accuracy(ties=ties, average=average))


def test_a_reading_takes_the_strongest_attack_and_both_denominators() -> None:
    readings, curves = read_outcomes(outcomes(), ["ties", "average"])
    found = {(r.model, r.surrogate, r.epsilon): r for r in readings}
    ties = found["ties", "a", EPSILONS[0]]
    assert (ties.attack, ties.asr, ties.asr_all, ties.surrogate_asr) == ("strong", 0.4, 0.4, 0.5)
    assert ties.relative_asr == pytest.approx(0.8)
    assert ties.relative_asr_low < 0.8 < ties.relative_asr_high
    assert ties.delta_asr == pytest.approx(-10)
    assert found["ties", "pretrained", EPSILONS[1]].attack == "weak"
    average = found["average", "a", EPSILONS[1]]
    # 20 of 100 are wrong when clean: they count in asr_all only.
    assert (average.images, average.images_both_correct) == (100, 80)
    assert (average.asr, average.asr_all) == (70 / 80, 0.9)
    assert found["ties", "ties", EPSILONS[0]].white_box
    curve = next(curve for curve in curves if (curve.model, curve.surrogate) == ("ties", "a"))
    assert (curve.attack, curve.epsilon50.status) == ("strong", "measured")
    # Log-linear between 40 % and 80 %: a quarter of the way to one half.
    assert curve.epsilon50.value == pytest.approx(EPSILONS[0] * 2**0.25)


def test_models_are_compared_where_half_of_the_images_fall_and_white_boxes_do_not_count() -> None:
    found = verdict()
    assert found.reference_epsilon == EPSILONS[1]
    worst = found.model("ties").worst
    assert worst is not None
    assert (worst.surrogate, worst.asr) == ("a", 0.8)
    assert found.images == 100


@pytest.mark.parametrize(
    ("ties", "average", "tolerance", "recommended", "as_safe"),
    [
        (0.8, 0.8, 0.0, "ties", ("average",)),
        (0.8, 0.7, 0.02, "ties", ()),
        (0.7, 0.8, 0.02, "average", ()),
        (0.7, 0.8, 0.15, "ties", ("average",)),
    ],
)
def test_the_safest_of_those_that_are_accurate_enough(
    ties: float, average: float, tolerance: float, recommended: str, as_safe: tuple[str, ...]
) -> None:
    found = verdict(ties=ties, average=average, accuracy_tolerance=tolerance)
    assert (found.recommended, found.as_safe) == (recommended, as_safe)


@pytest.mark.parametrize(
    ("gate", "failed", "must", "detail"),
    [
        (
            "relative_asr > 0.9 at 2/255",
            True,
            "relative ASR at 2/255 must be at most 0.9",
            "1.600 [1.349, 1.897] of 100 images under strong made on a at 2/255; the estimate decides, and its whole",
        ),
        (
            "relative_asr > 1.7",
            False,
            "relative ASR at every budget must be at most 1.7",
            "1.600 [1.349, 1.897] of 100 images under strong made on a at 2/255; the estimate decides, though",
        ),
        (
            "asr > 0.5 at 1/255 on ties",
            False,
            "ASR at 1/255 must be at most 50%",
            "40.0% [30.9, 49.8] of 100 images",
        ),
        (
            "asr_high >= 0.5 at 1/255",
            False,
            "the upper end of the interval of ASR at 1/255 must be below 50%",
            "the upper end of the interval decides",
        ),
        (
            "asr_low > 30% at 1/255 on ties",
            True,
            "the lower end of the interval of ASR at 1/255 must be at most 30%",
            "40.0% [30.9, 49.8] of 100 images under strong made on a at 1/255; the lower end",
        ),
        (
            "asr > 0.05 from pretrained",
            False,
            "under attacks made on the pretrained base must be at most 5%",
            "4.0% [1.6, 9.8] of 100 images under weak made on the pretrained base at 2/255",
        ),
        ("asr >= 1 from ties", True, "must be below 100%", "under strong made on ties at 2/255"),
        (
            "asr > 0.85 on average",
            True,
            "must be at most 85%",
            "87.5% [78.5, 93.1] of 80 images under strong made on a at 2/255; the estimate decides, though its interval reaches across the limit",
        ),
        ("epsilon50 < 1/255", False, "ε50 must be at least 1/255", "1.19/255 ["),
        (
            "epsilon50 < 1.5/255",
            True,
            "ε50 must be at least 1.5/255",
            "under strong made on a; the estimate decides",
        ),
        (
            "clean_accuracy < 90%",
            True,
            "clean accuracy must be at least 90%",
            "80.0% [75.0, 85.0]; the estimate decides, and its whole",
        ),
        (
            "delta_asr > 40",
            False,
            "ΔASR at every budget must be at most 40 points",
            "30.0 points of 100 images under strong made on a at 2/255; the estimate decides",
        ),
    ],
)
def test_gates(gate: str, failed: bool, must: str, detail: str) -> None:
    found = verdict(gate)
    (result,) = found.gates
    assert (result.failed, found.failed) == (failed, failed)
    assert must in result.must
    assert detail in result.detail


def test_the_headline_is_the_reason_of_the_banner() -> None:
    """One worst attacker, by ASR; a gate on relative ASR may fail on another, which is then not called the worst."""
    here = {EPSILONS[0]: 10, EPSILONS[1]: 45}
    weaker = pd.DataFrame(rows("ties", "pretrained", "strong", here)).assign(surrogate_adversarial=0)
    weaker.loc[weaker["image"] < 20, "surrogate_adversarial"] = 1
    mixed = pd.concat([outcomes().query("surrogate != 'pretrained'"), weaker])
    shares = accuracy(ties=0.8, average=0.5)
    on_worst = judge(audit(fail_if=["asr > 0.5 at 2/255", "clean_accuracy < 90%"]), mixed, shares)
    assert banner(on_worst) == "Not to be released: ties fails 2 of 2 gates"
    assert headline(on_worst).startswith(
        "Attacks made on a fool ties on 80% [71, 87] of 100 images at 2/255. ASR at"
    )
    assert headline(on_worst).endswith("ASR at 2/255 must be at most 50%.")
    on_another = judge(audit(fail_if=["relative_asr > 1.8 at 2/255"]), mixed, shares)
    assert headline(on_another).startswith("Attacks made on the pretrained base fool ties on 45% ")
    assert headline(on_another).endswith("Relative ASR at 2/255 must be at most 1.8.")
    text = to_text(on_another)
    assert "The worst attacker, by ASR, holds a. Attacks made on a fool ties on 80%" in text
    assert text.count("orst attacker") == 1
    accurate = judge(audit(fail_if=["clean_accuracy < 90%"]), mixed, shares)
    assert headline(accurate).startswith("ties: clean accuracy must be at least 90%; it is 80.0% [75.0, 85.0]; ")


def test_gates_say_at_which_budget_the_worst_attacker_is_looked_for() -> None:
    assert verdict().reference_epsilon == EPSILONS[1]
    assert verdict("asr > 0.9 at 1/255").reference_epsilon == EPSILONS[0]
    # One on a candidate beside the release does not.
    beside = verdict("asr > 0.9 at 1/255 on ties", merged={"average": "x"}, candidates=["ties"])
    assert beside.reference_epsilon == EPSILONS[1]


def test_a_candidates_failure_does_not_condemn_the_release() -> None:
    found = verdict("asr > 0.85 on ties", "asr > 0.9", merged={"average": "x"}, candidates=["ties"])
    assert [(result.model, result.failed) for result in found.gates] == [("ties", False), ("average", False)]
    found = verdict("asr > 0.7 on ties", "asr > 0.9", merged={"average": "x"}, candidates=["ties"])
    assert [(result.model, result.failed, result.decides) for result in found.gates] == [
        ("ties", True, False),
        ("average", False, True),
    ]
    assert not found.failed
    assert banner(found) == "average passes every gate; candidates that fail: ties"
    assert "gate FAILED on ties, a candidate: the release does not hang on it: ASR" in to_text(found)


def test_every_model_to_be_released_has_to_pass() -> None:
    found = verdict("asr > 0.85", merged={"average": "x"}, candidates=["ties"])
    assert [(result.model, result.failed) for result in found.gates] == [("average", True)]
    both = verdict("asr > 0.85", merged={"ties": "x", "average": "y"}, candidates=[])
    assert [(result.model, result.failed) for result in both.gates] == [("ties", False), ("average", True)]
    assert both.failed
    assert both.subject.name == "average"
    assert banner(both) == "Not to be released: average fails 1 of 1 gate"


def test_models_that_are_not_accurate_enough_are_not_compared() -> None:
    """Only one of two is within the tolerance: nothing is said about how intervals overlap."""
    found = verdict(ties=0.8, average=0.7)
    assert found.compared == ("ties",)
    assert "Of the 2 models, only ties is within 2 points" in to_text(found)
    assert "told apart from it" not in to_text(found)


def test_another_merge_attacks_only_where_a_scenario_says_so() -> None:
    more = pd.concat([outcomes(), pd.DataFrame(rows("average", "ties", "strong", {EPSILONS[1]: 80}, wrong=20))])
    shares = accuracy(ties=0.8, average=0.8)
    alone = judge(audit(), more, shares).model("average")
    assert {reading.surrogate for reading in alone.readings} == {"a", "pretrained"}
    asked = audit(scenarios=["ingredients", "pretrained", "other_merges"])
    attacked = judge(asked, more, shares).model("average")
    assert attacked.worst is not None
    assert (attacked.worst.surrogate, attacked.worst.white_box) == ("ties", False)
    assert "ties" not in {reading.surrogate for reading in judge(asked, more, shares).model("ties").readings}


def test_white_boxes_alone_are_called_so() -> None:
    found = verdict(scenarios=["merged"])
    only = judge(
        audit(scenarios=["merged"]), outcomes().query("surrogate == 'ties'"), accuracy(ties=0.8, average=0.8)
    )
    assert found.subject.name == "ties"
    assert "only the model itself was a surrogate" in to_text(only)


def test_nothing_measured_fails_a_gate() -> None:
    """A pipeline must not pass because no image was classified correctly."""
    blind = outcomes().assign(target_clean=1)
    found = judge(audit(fail_if=["asr > 0.99"]), blind, accuracy(ties=0.5, average=0.5))
    assert found.failed
    assert found.recommended is None
    assert "nothing can be said" in to_text(found)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("asr > 0.5 at 3/255", "no such budget is measured; budgets.epsilon has 1/255, 2/255"),
        ("asr > 0.5 from b", "no surrogate 'b'"),
        ("asr > 0.5 on tie", "no model 'tie' (did you mean 'ties'?)"),
        ("asr > 0.5 from ties on average", "belong to scenario other_merges, which is not asked for"),
        ("epsilon50 < 2", "a budget is at most 1, as pixels are; write 2/255"),
    ],
)
def test_gates_on_what_is_not_measured_are_refused_before_anything_runs(gate: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_gates(audit(fail_if=[gate]), ["a", "pretrained", "ties", "average"])
    assert message in str(caught.value)


def test_a_gate_on_black_boxes_needs_some() -> None:
    with pytest.raises(UserError, match="every scenario is a white box; say which: from MODEL"):
        check_gates(audit(scenarios=["merged"], fail_if=["asr > 0.5"]), ["ties", "average"])
    check_gates(audit(scenarios=["merged"], fail_if=["asr > 0.5 from ties on ties"]), ["ties", "average"])


def test_a_page_says_what_a_gate_allows_in_words() -> None:
    found = verdict("asr > 50% at 2/255")
    assert "of at most 2 of 255 grey levels at any pixel. That must be at most 50%." in to_html(found)


@pytest.mark.parametrize(
    ("gate", "said"),
    [("asr > 0.9 at 2/255", "It would pass the gate."), ("asr > 0.5", "It would fail 1 of 1 gate.")],
)
def test_a_page_says_whether_what_it_advises_would_pass(gate: str, said: str) -> None:
    """The one that is more accurate is fooled on 70 of 80 images."""
    merged = {"target": {"ties": "merged"}, "surrogate": {"ties": "merged"}}
    asked = audit(
        merged="m.safetensors", candidates=[{"method": "weight_averaging", "label": "average"}], fail_if=[gate]
    )
    found = judge(asked, outcomes().replace(merged), accuracy(merged=0.7, average=0.8))
    assert found.recommended == "average"
    assert said in to_html(found)
    assert "It would" not in to_html(verdict("asr > 0.75 at 2/255", ties=0.8, average=0.7))


def test_every_rendering_says_the_same() -> None:
    found = verdict("relative_asr > 0.9 at 2/255")
    sentence = "Attacks made on a fool ties on 80% [71, 87] of 100 images at 2/255. Relative ASR at 2/255 must be at most 0.9."
    # the page, which somebody opens who has not read anything yet, says the budget in words
    change = "of 100 images after a change of at most 2 of 255 grey levels at any pixel. Relative ASR"
    said = {
        sentence: (to_text(found), to_markdown(found).replace("\\", ""), to_json(found)),
        sentence.replace("of 100 images at 2/255. Relative ASR", change): (to_html(found),),
    }
    for headed, text in [(headed, text) for headed, texts in said.items() for text in texts]:
        assert "Not to be released: ties fails 1 of 1 gate" in text
        assert headed in text
        assert "From a: ε50 1.19/255 [" in text
        assert "; relative ASR 1.60 [1.35, 1.90] at 2/255." in text
        assert "average cannot be told apart from it" in text
    assert "gate FAILED on ties: relative ASR at 2/255 must be at most 0.9; it is 1.600" in to_text(found)
    assert math.isclose(found.subject.clean_accuracy.value, 0.8)


def test_names_from_outside_stay_text() -> None:
    evil = '<img src=x onerror="alert(1)">|`*'
    found = judge(
        audit(ingredients={evil: "a.safetensors"}),
        outcomes().replace({"surrogate": {"a": evil}}),
        accuracy(ties=0.8, average=0.8),
    )
    page, card = to_html(found), to_markdown(found)
    assert "<img" not in page
    assert "<img" not in card.replace("\\<img", "")
    assert "&lt;img src=x" in page
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == len(EPSILONS) + 4 for line in table[:4])


def beside(expert: int, base: int) -> Verdict:
    """ties (fooled on 80 of 100 images at 2/255) beside its expert and its base; two of the attackers hold an expert."""
    low, high = EPSILONS
    more = [
        *rows("expert", "pretrained", "strong", {low: 1, high: expert}),
        *rows("expert", "expert/t", "strong", {low: 90, high: 100}),
        *rows("pretrained", "a", "strong", {low: 1, high: base}),
        *rows("pretrained", "pretrained", "strong", {low: 90, high: 100}),
    ]
    seen = pd.concat([outcomes(), pd.DataFrame(more)], ignore_index=True)
    return judge(audit(), seen, accuracy(ties=0.9, average=0.7, expert=0.95, pretrained=0.6))


@pytest.mark.parametrize(
    ("expert", "base", "few", "said"),
    [
        (20, 99, "Riskier than its expert; safer than its base", "fooled on 20% [13, 29] of 100 images, less often than ties"),
        (99, 99, "Safer than its expert and its base", "the pretrained base is fooled on 99% [95, 100] of 100 images, more often"),
        (80, 80, "Not told apart", "The task’s own expert is fooled on 80% [71, 87] of 100 images and cannot be told apart from ties"),
    ],
)  # fmt: skip
def test_a_model_stands_beside_what_it_was_made_of(expert: int, base: int, few: str, said: str) -> None:
    found = beside(expert, base)
    assert [model.name for model in found.made_of] == ["expert", "pretrained"]
    # nobody attacks a model with itself
    assert [model.worst.surrogate for model in found.made_of if model.worst] == ["pretrained", "a"]
    assert safer_than_ingredients(found) == few
    assert said in made_of(found)
    assert made_of(found) in findings(found)
    content = json.loads(to_json(found))
    assert {pair["second"] for pair in content["beside_ingredients"]["pairs"]} <= {
        "ties",
        "average",
        "expert",
        "pretrained",
    }
    assert content["made_of"][0]["worst"]["asr"] == expert / 100
    page = to_html(found)
    assert few in page
    assert 'href="report.html"' in page
    assert f"{expert}.0%" in page


def test_what_was_not_attacked_is_not_spoken_of() -> None:
    found = verdict()
    assert (found.made_of, found.beside_ingredients, made_of(found), safer_than_ingredients(found)) == (
        (),
        None,
        "",
        "",
    )
    assert "what it was made of" not in to_html(found)
