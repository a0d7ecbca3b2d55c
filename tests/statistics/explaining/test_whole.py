"""A whole run explained, drawn from known causes: what is planted comes first, and nothing is claimed of noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.report.cause_pictures import marks_of
from mergerisk.statistics import epsilon50_table
from mergerisk.statistics.explaining import Correlation, NullLine, Odds, Unsaid, explain

if TYPE_CHECKING:
    from mergerisk.statistics.explaining import Explained, Explanation

EPSILONS = (0.01, 0.02, 0.04)


def made(
    seed: int,
    *,
    cause: float = 0.0,
    methods: int = 8,
    images: int = 40,
    surrogates: tuple[str, ...] = ("expert",),
    by_method: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Outcomes, ``causes`` and ``pair_causes`` of a run: log odds of being fooled rise by ``cause`` per unit of
    ``cause``, whose methods differ by ``by_method``; ``noise`` moves nothing, ``distance`` is one number per method that
    moves nothing either."""
    random = np.random.default_rng(seed)
    outcomes, causes, pairs = [], [], []
    names = [f"merge {place}" for place in range(methods)]
    for task in ("a", "b"):
        easy = random.normal(size=images)
        for surrogate in surrogates:
            values = random.normal(size=(images, methods)) + by_method * random.normal(size=methods)
            noise = random.normal(size=(images, methods)) + random.normal(size=methods)
            own = random.normal(size=images)
            image, place = (part.ravel() for part in np.mgrid[:images, :methods])
            target = np.array(names)[place]
            pair: dict[str, Any] = {"task": task, "surrogate": surrogate, "target": target, "seed": 0}
            measured = {"cause": values.ravel(), "noise": noise.ravel(), "of_surrogate": own[image]}
            reasons = {f"{name}_missing": "" for name in measured}
            causes.append(pd.DataFrame({**pair, "image": image, **measured, **reasons}))
            of_pair = {**pair, "target": names, "cause": "distance", "measure": "distance", "part": "all"}
            pairs.append(pd.DataFrame({**of_pair, "value": random.normal(size=methods), "missing": ""}))
            for epsilon in EPSILONS:
                odds = easy[:, None] + cause * values + 2 * np.log(epsilon / 0.02)
                fooled = (random.random((images, methods)) < 1 / (1 + np.exp(-odds))).ravel()
                said = {
                    "label": 0,
                    "surrogate_clean": 0,
                    "target_clean": 0,
                    "surrogate_adversarial": 1,
                    "target_adversarial": fooled.astype(int),
                    "zero_gradients": 0,
                    "aimed_at": -1,
                    "l2": 0.0,
                }
                setting = {"attack": "fgsm", "epsilon": epsilon, "steps": 1}
                outcomes.append(pd.DataFrame({**pair, **setting, "image": image, **said}))
    return tuple(pd.concat(parts, ignore_index=True) for parts in (outcomes, causes, pairs))  # type: ignore[return-value]


def of(found: Explanation, name: str) -> Explained:
    return next(measure for measure in found.measures if measure.measure == name)


def test_a_planted_cause_comes_first_at_every_level() -> None:
    outcomes, causes, pairs = made(1, cause=1.5)
    found = explain(outcomes, causes, pairs, permutations=499, refits=19)
    first = found.worst.measures[0]
    assert first.measure == "cause"
    assert first.answers == {"methods": "yes", "same_image": "yes", "images": "yes"}
    assert isinstance(first.epsilon50, Correlation)
    assert first.epsilon50.high < 0
    assert isinstance(first.matched, Odds)
    assert first.matched.low > 1
    assert not isinstance(first.predicted, Unsaid)
    assert first.predicted.low > 0.5
    assert first.predicted.p == pytest.approx(1 / 20)
    assert first.predicted.auc > first.predicted.null
    assert not isinstance(first.mediated, Unsaid)
    assert 0 < first.mediated.low <= first.mediated.share
    assert [one.measure for one in found.worst.measures if one.explains] == ["cause"]


@pytest.mark.slow
def test_without_a_cause_claims_stay_at_their_level() -> None:
    """Of each question by itself, over all measures."""
    said = {"methods": 0, "same_image": 0, "images": 0}
    runs = 20
    for seed in range(runs):
        found = explain(*made(100 + seed, images=15), permutations=99, refits=0, seed=seed)
        for level in said:
            said[level] += any(m.answers[level] == "yes" for m in found.worst.measures)  # type: ignore[index]
    for level, hits in said.items():
        assert stats.binom.sf(hits - 1, runs, 0.05) > 1e-4, level


def test_epsilon50_is_that_of_the_report() -> None:
    outcomes, causes, pairs = made(2, cause=1.0)
    found = explain(outcomes, causes, pairs, permutations=9, refits=0)
    curves = epsilon50_table(outcomes)
    value = curves["epsilon50"].where(
        curves["status"] == "measured", curves["status"].map({"below_smallest": 0.0, "not_reached": np.inf})
    )
    curves = curves.assign(value=value)
    table = {(row.task, row.target): row.value for row in curves.itertuples()}
    points = found.points["cause"]
    assert {(point.task, point.target): point.epsilon50 for point in points} == pytest.approx(table)
    by_task = causes.groupby("task")["cause"]
    low, high = (causes["task"].map(by_task.quantile(share)) for share in (0.01, 0.99))
    middle = causes.assign(cause=causes["cause"].clip(low, high))
    means = middle.groupby(["task", "target"])["cause"].mean()
    assert [point.value for point in points] == pytest.approx([means[p.task, p.target] for p in points])
    rho = [
        stats.spearmanr(means[task], [table[task, name] for name in means[task].index]).statistic for task in "ab"
    ]
    held = of(found.worst, "cause").epsilon50
    assert isinstance(held, Correlation)
    assert held.value == pytest.approx(np.mean(rho))


def test_what_cannot_be_said_is_said_with_its_reason() -> None:
    outcomes, causes, pairs = made(3, methods=2)
    causes = causes.assign(gone=np.nan, gone_missing="no gradient", fixed=1.0, fixed_missing="")
    found = explain(outcomes, causes, pairs, permutations=9, refits=0).worst
    why = {
        m.measure: [getattr(part, "why", None) for part in (m.epsilon50, m.matched, m.images)]
        for m in found.measures
    }
    assert why["gone"] == ["all_missing"] * 3
    assert of(found, "gone").missing == {"no gradient": 2 * 2 * 40}
    assert why["fixed"] == ["constant"] * 3
    assert why["distance"] == ["few_methods", "by_method", "by_method"]
    assert why["of_surrogate"] == ["few_methods", "by_image", None]
    assert why["noise"] == ["few_methods", None, None]
    few = explain(outcomes[outcomes["image"] < 4], causes, pairs, permutations=9, refits=0).worst
    assert of(few, "noise").images == Unsaid("few_images", "8")


def test_too_few_methods_for_any_order_to_pass_are_said_not_to_tell() -> None:
    found = explain(*made(4, methods=4, cause=3.0), permutations=199, refits=0).worst
    assert of(found, "cause").answers["methods"] == "untold", "of 24 orders none is rare enough"
    assert of(found, "cause").answers["images"] == "yes"


def test_the_outcome_itself_explains_nothing() -> None:
    outcomes, causes, pairs = made(5)
    causes = causes.assign(not_fooled=1.0, not_fooled_missing="")
    assert "not_fooled" not in explain(outcomes, causes, pairs, permutations=9, refits=0).points


def test_the_worst_attacker_is_the_one_that_is_named_and_null_lines_are_beside() -> None:
    tables = made(6, surrogates=("expert", "pretrained", "other_expert"), images=20)
    nulls = (NullLine("unrelated", "other_expert"), NullLine("noise", None))
    worst = {f"merge {place}": "expert" if place == 0 else "pretrained" for place in range(7)}
    worst["merge 6"] = "other_expert"
    done: list[tuple[int, int]] = []

    def listen(*work: int) -> None:
        done.append(work)  # type: ignore[arg-type]

    found = explain(
        *tables, worst={**worst, "none": "expert"}, nulls=nulls, permutations=9, refits=0, listen=listen
    )
    assert found.worst.chosen == worst
    assert found.worst.methods == tuple(worst), "those without one are not among its methods"
    assert [one.attacker for one in found.attackers] == ["expert", "pretrained"]
    assert found.nulls == nulls
    assert {point.surrogate for point in found.points["cause"]} == {"expert", "pretrained", "other_expert"}
    assert done == [(place + 1, 12) for place in range(12)]
    drawn = [mark.label for mark in marks_of(found, found.worst, "cause") if mark.series is None]
    assert len(drawn) == 2 * 6, "what is drawn as a null line is not the worst attacker's own"
    with pytest.raises(UserError, match=r"made on 2 surrogates \(expert, pretrained\): say which of them"):
        explain(*tables, nulls=nulls)
    with pytest.raises(UserError, match=r"no attack is made on 'expret' \(did you mean 'expert'\?\)"):
        explain(*tables, worst={"merge 1": "expret"})


def test_only_images_that_both_models_get_right_count_and_no_model_attacks_itself() -> None:
    outcomes, causes, pairs = made(7, images=30)
    wrong = outcomes["image"] >= 20
    outcomes.loc[wrong, "target_clean"] = 1
    assert explain(outcomes, causes, pairs, permutations=9, refits=0).worst.images == 2 * 20
    itself = outcomes.assign(surrogate=outcomes["target"])
    with pytest.raises(UserError, match="no target is attacked"):
        explain(itself, causes, pairs)


def test_seeds_are_blocks_of_their_own() -> None:
    one, other = made(8, cause=1.0, images=20), made(9, cause=1.0, images=20)
    both = [pd.concat([a, b.assign(seed=1)], ignore_index=True) for a, b in zip(one, other, strict=True)]
    found = explain(*both, permutations=9, refits=0).worst
    held = of(found, "cause").epsilon50
    assert isinstance(held, Correlation)
    assert held.blocks == 4
