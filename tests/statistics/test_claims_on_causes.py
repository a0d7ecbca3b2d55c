"""Claims on diagnostics: means and correlations of a plain script, planted differences found, and gaps that are said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.report.fact_words import in_the_report, said
from mergerisk.statistics import (
    BUILT_IN,
    ON_CAUSES,
    Diagnostics,
    built_in,
    judge_claims,
    parse_claims,
    tables_from_outcomes,
)
from tests.statistics.made_up import outcomes

if TYPE_CHECKING:
    from mergerisk.statistics import Claim, ClaimVerdict, Tables

TASKS = ("digits", "letters", "signs", "textures", "faces", "maps")
CHANCES = {"weight_averaging": 0.35, "weight_averaging+surgery": 0.45, "ties": 0.5, "dare": 0.4}
PAIRED: dict[str, Any] = {
    "name": "raises", "sentence": "Surgery raises alignment.", "kind": "paired", "measure": "alignment",
    "first": {"correction": "surgery"}, "second": {"correction": "none"},
    "where": {"method": "weight_averaging", "surrogate": "expert"}, "expect": "higher",
}  # fmt: skip
EXPLAINS: dict[str, Any] = {
    "name": "more", "sentence": "Cause explains more than noise.", "kind": "explains", "measure": "cause",
    "than": "noise", "where": {"surrogate": "expert"},
}  # fmt: skip


def claim(given: dict[str, Any], **changes: Any) -> Claim:
    return parse_claims({"claims": [given | changes]})[0]


def study(seed: int = 0, *, raised: float = 0.2, tasks: tuple[str, ...] = TASKS, effect: float = 1.5) -> Tables:
    """Outcomes with diagnostics: ``alignment`` is larger by ``raised`` with Surgery; who is fooled follows ``cause``,
    by ``effect``, and not ``noise``; ``distance`` is one value per pair of models."""
    random = np.random.default_rng(seed)
    made = outcomes(
        CHANCES, seed=seed, tasks=tasks, images=40, attacks=("fgsm",), accuracy=dict.fromkeys(CHANCES, 0.9)
    )
    keys = ["task", "surrogate", "target", "seed", "image"]
    causes = made[keys].drop_duplicates().reset_index(drop=True)
    size = len(causes)
    surgery = causes["target"].str.endswith("+surgery")
    causes["alignment"] = random.normal(0.5, 0.1, size) + raised * surgery
    causes["cause"], causes["noise"] = random.normal(size=size), random.normal(size=size)
    rows = made.merge(causes, "left", keys)
    fooled = random.random(len(rows)) < 1 / (1 + np.exp(-effect * rows["cause"] - np.log(rows["epsilon"] * 64)))
    made["target_adversarial"] = np.where(fooled, made["label"] + 1, made["label"])
    causes.loc[::17, "alignment"] = np.nan
    causes = causes.assign(**{f"{name}_missing": "" for name in ("alignment", "cause", "noise")})
    pairs = causes[keys[:4]].drop_duplicates().assign(cause="d", measure="distance", part="all", missing="")
    pairs["value"] = random.normal(size=len(pairs))
    merges = [*CHANCES]
    return tables_from_outcomes(made, merges=merges, diagnostics=Diagnostics(causes, pairs))


def judged(tables: Tables, one: Claim) -> ClaimVerdict:
    return judge_claims(tables, [one], resamples=300)[0]


def test_a_paired_claim_is_on_means_over_the_images_that_both_get_right() -> None:
    tables = study(1)
    found = judged(tables, claim(PAIRED))
    made, diagnostics = tables.outcomes, tables.diagnostics
    assert made is not None
    assert diagnostics is not None
    right = made[(made["target_clean"] == made["label"]) & (made["surrogate_clean"] == made["label"])]
    once = right[(right["surrogate"] == "expert") & (right["epsilon"] == right["epsilon"].min())]
    values = once.merge(diagnostics.causes, "left", ["task", "surrogate", "target", "seed", "image"])
    means = values.groupby(["task", "target"])["alignment"].mean().unstack()
    differences = means["weight_averaging+surgery"] - means["weight_averaging"]
    assert found.effects[0].value == pytest.approx(differences.mean())
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert (found.answer, found.unit, found.units, found.rests_on) == ("supported", "tasks", 6, 6)
    assert found.intervals[0].over == "images"
    # Of 6 tasks' 40 images with a spread of 0.1 each, two means differ within ± 2 · 0.1 · √(2 / 200).
    assert found.intervals[0].high - found.intervals[0].low == pytest.approx(0.04, rel=0.4)
    assert found.images is None, "McNemar's test is of who is fooled"
    assert found.epsilon50 is None
    assert found.saturation is None
    assert judged(study(2, raised=0.0), claim(PAIRED)).answer == "inconclusive"


def test_the_worst_attackers_diagnostics_are_those_of_whom_it_holds() -> None:
    found = judged(study(1), claim(PAIRED, where={"method": "weight_averaging"}))
    assert found.chosen
    assert found.answer == "supported"
    assert [part.attacker for part in found.attackers] == ["expert", "pretrained", "pooled"]


def test_a_single_tasks_images_are_drawn_and_what_has_one_value_per_pair_is_not_tested() -> None:
    tables = study(3, tasks=("digits",))
    found = judged(tables, claim(PAIRED))
    assert (found.answer, found.unit) == ("supported", "images")
    assert found.units == 40
    pair = judged(tables, claim(PAIRED, measure="distance"))
    assert pair.missing is not None
    assert "one value per pair" in said(pair.missing)
    single = judged(tables, claim(EXPLAINS))
    assert (single.answer, single.unit, single.units) == ("supported", "images", 40)


def test_one_diagnostic_explains_more_than_another() -> None:
    tables = study(4)
    found = judged(tables, claim(EXPLAINS))
    made, diagnostics = tables.outcomes, tables.diagnostics
    assert made is not None
    assert diagnostics is not None
    keep = (made["target_clean"] == made["label"]) & (made["surrogate_clean"] == made["label"])
    keep &= (made["surrogate"] == "expert") & made["target"].isin(CHANCES)
    rows = made[keep].merge(diagnostics.causes, "left", ["task", "surrogate", "target", "seed", "image"])
    rows["fooled"] = rows["target_adversarial"] != rows["label"]
    per_task: dict[str, list[float]] = {}
    for task, own in rows.groupby("task"):
        blocks = [
            block for _, block in own.groupby(["attack", "epsilon", "target"]) if block["fooled"].nunique() > 1
        ]
        rho = [[stats.spearmanr(b[name], b["fooled"]).statistic for name in ("cause", "noise")] for b in blocks]
        per_task[str(task)] = np.average(rho, axis=0, weights=[len(b) for b in blocks]).tolist()
    one, other = np.array([*per_task.values()]).T
    signed = one * np.sign(one.sum()) - other * np.sign(other.sum())
    assert found.effects[0].value == pytest.approx(signed.mean())
    assert [effect.value for effect in found.effects[1:]] == pytest.approx([one.mean(), other.mean()])
    assert found.p_value == pytest.approx(stats.ttest_1samp(signed, 0).pvalue)
    assert found.answer == "supported"
    assert found.denominators[0].measure == "asr_all"
    turned = judged(tables, claim(EXPLAINS, measure="noise", than="cause"))
    assert turned.answer == "contradicted"
    pair = judged(tables, claim(EXPLAINS, than="distance"))
    assert pair.missing is not None
    assert "same for all images of a target; between: targets" in said(pair.missing)
    between = judged(tables, claim(EXPLAINS, than="distance", between="targets"))
    assert between.test
    assert between.tasks == 6


def test_of_two_that_explain_nothing_neither_is_said_to_explain_more() -> None:
    """Of a single task, whose p-value is the jackknife's over images; over several it is Student's t."""
    one, runs = claim(EXPLAINS), 40
    made = (study(100 + seed, effect=0.0, tasks=("digits",)).measuring(one.reads) for seed in range(runs))
    hits = sum(one.tested(tables, "both_correct", 0.05).p_value < 0.05 for tables in made)
    assert stats.binom.sf(hits - 1, runs, 0.05) > 1e-3


def test_a_trend_may_be_along_a_diagnostic() -> None:
    given = {
        "name": "t",
        "sentence": "s",
        "kind": "trend",
        "measure": "asr",
        "expect": "rising",
        "by": "alignment",
    }
    found = judged(study(5), claim(given))
    assert found.test
    assert found.epsilon50 is None
    assert "by" in found.compared.values
    given = {**given, "measure": "alignment", "by": "clean_accuracy"}
    assert judged(study(5), claim(given)).epsilon50 is None


def test_built_in_claims_on_causes_are_those_that_the_data_can_tell() -> None:
    tables = study()
    assert built_in(tables) == BUILT_IN
    assert tables.diagnostics is not None
    more = tables.diagnostics.causes.rename(columns={"alignment": "gradient_alignment"})
    more = more.rename(columns={"alignment_missing": "gradient_alignment_missing"})
    told = tables_from_outcomes(tables.outcomes, merges=[*CHANCES], diagnostics=Diagnostics(more))  # type: ignore[arg-type]
    assert [one.name for one in built_in(told)[len(BUILT_IN) :]] == ["hint_gradient_alignment"]
    without = tables_from_outcomes(tables.outcomes, merges=[*CHANCES])  # type: ignore[arg-type]
    assert built_in(without) == BUILT_IN
    assert parse_claims({"include": ["hint_gradient_alignment", "causes"]}) == ON_CAUSES
    asked = judge_claims(without, ON_CAUSES[:2], resamples=100)
    assert ["the data hold no diagnostics" in said(one.missing) for one in asked if one.missing] == [True, True]
    lacking = judge_claims(told, ON_CAUSES[:2], resamples=100)
    assert lacking[0].missing is not None
    assert said(lacking[0].missing, in_the_report).startswith("the data hold no representation bias")
    assert lacking[1].test


def test_an_unknown_measure_is_refused_with_those_there_are() -> None:
    tables = study()
    with pytest.raises(UserError) as caught:
        judge_claims(tables, [claim(PAIRED, measure="alignmnt")])
    assert "no measure 'alignmnt' (did you mean 'alignment'? they have: asr," in str(caught.value)
    assert str(caught.value).endswith("alignment, cause, distance, noise)")
    with pytest.raises(
        UserError, match=r"unknown measure 'alignment' \(known: asr, .*causes: \[gradient_alignment"
    ):
        judge_claims(tables_from_outcomes(tables.outcomes), [claim(PAIRED)])  # type: ignore[arg-type]
    for changes, message in (
        ({"than": "cause"}, "must be two measures"),
        ({"measure": "asr"}, "asr is no measure of a diagnostic"),
    ):
        with pytest.raises(UserError, match=message):
            claim(EXPLAINS, **changes)
    with pytest.raises(UserError, match="unknown measure 'alignment'"):
        parse_claims(
            {
                "claims": [
                    {"name": "b", "sentence": "s", "kind": "best", "method": "ties", "measures": ["alignment"]}
                ]
            }
        )
