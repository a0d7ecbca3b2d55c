"""What explains who is fooled, on outcomes drawn from known causes: found where planted, at its level where not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.statistics.explaining import (
    leave_one_target_out,
    matched_logit,
    mediated_share,
    rank_correlations,
)
from mergerisk.statistics.explaining.correlation import weighted_spearman
from mergerisk.statistics.explaining.generalising import _Areas
from mergerisk.statistics.explaining.rows import left_out
from tests.statistics.explaining.made import study


def within(hits: int, tries: int, level: float) -> bool:
    """Whether so many false findings are what chance gives at a level, but once in ten thousand."""
    return bool(stats.binom.sf(hits - 1, tries, level) > 1e-4)


# --- pieces ----------------------------------------------------------------------------------------------


def test_weighted_ranks_are_those_of_repeated_values() -> None:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 6, 30).astype(float), random.integers(0, 2, 30).astype(float)
    weights = random.integers(0, 4, (5, 30))
    for row, found in zip(weights, weighted_spearman(x, y, weights.astype(float)), strict=True):
        assert found == pytest.approx(stats.spearmanr(np.repeat(x, row), np.repeat(y, row)).statistic, abs=1e-12)
    assert np.isnan(weighted_spearman(x, np.ones(30), np.ones((1, 30)))).all()


def test_areas_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    chance, outcome = random.integers(0, 9, 50) / 9, random.integers(0, 2, 50).astype(float)
    one = _Areas(chance, np.zeros(50, dtype=np.intp))
    assert one.of(outcome) == pytest.approx(roc_auc_score(outcome, chance))
    halves = np.arange(50) % 2
    pairs = [outcome[halves == h].sum() * (1 - outcome[halves == h]).sum() for h in (0, 1)]
    areas = [roc_auc_score(outcome[halves == h], chance[halves == h]) for h in (0, 1)]
    assert _Areas(chance, halves).of(outcome) == pytest.approx(np.average(areas, weights=pairs))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """With as many groups as images; two tasks of unequal size."""
    rows = pd.DataFrame({"task": ["a"] * 12 + ["b"] * 8, "image": [*range(12), *range(8)]})
    values = np.random.default_rng(2).normal(size=20)
    left = left_out(rows, seed=0, groups=99)
    without = np.full((2, 12), np.nan)
    for task, count in enumerate(left.counts):
        for group in range(count):
            keep = ~((left.tasks == task) & (left.groups == group))
            halves = [values[keep & (left.tasks == t)].mean() for t in (0, 1)]
            without[task, group] = np.mean(halves)
    errors = [values[left.tasks == t].std(ddof=1) ** 2 / (left.tasks == t).sum() for t in (0, 1)]
    assert left.error(without) == pytest.approx(np.sqrt(sum(errors)) / 2)
    assert left.freedom == 18


# --- correlation -----------------------------------------------------------------------------------------

COLUMNS = ["cause", "companion", "noise"]


def test_correlations_are_means_over_blocks_never_pooled() -> None:
    """Two tasks between which diagnostic and outcome move together, and inside which they move apart."""
    image = np.tile(np.arange(10), 2)
    table = pd.DataFrame(
        {
            "task": ["a"] * 10 + ["b"] * 10,
            "attack": "fgsm",
            "epsilon": 0.1,
            "target": "merge",
            "image": image,
            "d": image + 100.0 * (np.arange(20) >= 10),
            "y": -image + 100.0 * (np.arange(20) >= 10),
        }
    )
    found = rank_correlations(table, ["d"], outcome="y").iloc[0]
    assert found["correlation"] == pytest.approx(-1)
    assert found["blocks"] == 2


def test_a_planted_cause_is_found_between_images() -> None:
    found = [rank_correlations(study(seed, cause=0.8), COLUMNS).set_index("diagnostic") for seed in range(10)]
    assert all(one.loc["cause", "p_holm"] < 0.05 and one.loc["cause", "low"] > 0 for one in found)
    assert all(one.loc["companion", "p_holm"] < 0.05 for one in found), "what goes with it is found too"


def test_false_findings_between_images_stay_at_their_level() -> None:
    names = ["noise", "by_image", "cause"]
    found = pd.concat([rank_correlations(study(seed, attacks=2, images=40), names) for seed in range(60)])
    for name, own in found.groupby("diagnostic"):
        assert within(int((own["p"] < 0.05).sum()), len(own), 0.05), name
        covered = (own["low"] <= 0) & (own["high"] >= 0)
        assert within(int((~covered).sum()), len(own), 0.05), name
    by_study = found["p_holm"].to_numpy().reshape(60, 3).min(axis=1)
    assert within(int((by_study < 0.05).sum()), 60, 0.05)


def test_between_targets_many_images_make_no_false_findings() -> None:
    """Targets differ, and a diagnostic that has nothing to do with it has a value per target."""
    p = [
        rank_correlations(
            study(seed, images=30, spread=2), ["by_target"], between="targets", permutations=99, seed=seed
        )["p"].iloc[0]
        for seed in range(40)
    ]
    assert within(sum(value <= 0.05 for value in p), 40, 0.05)


def test_a_cause_is_found_between_targets() -> None:
    table = study(3, cause=2.0, targets=12, spread=0.1)
    found = rank_correlations(table, ["cause"], between="targets", permutations=199).iloc[0]
    means = table.groupby(["task", "target"])[["cause", "fooled"]].mean().reset_index()
    expected = [stats.spearmanr(own["cause"], own["fooled"]).statistic for _, own in means.groupby("task")]
    assert found["correlation"] == pytest.approx(np.mean(expected))
    assert found["p"] < 0.05
    assert found["low"] > 0


def test_missing_values_are_left_out_and_counted() -> None:
    table = study(0, cause=1.0)
    holed = table.assign(cause=table["cause"].where(table.index % 3 != 0))
    found = rank_correlations(holed, ["cause", "by_target"]).set_index("diagnostic")
    assert found.loc["cause", "missing"] == (table.index % 3 == 0).sum()
    assert found.loc["by_target"].drop(["rows", "missing", "blocks"]).isna().all(), "the same inside every block"
    with pytest.raises(UserError, match=r"the table has no column 'caus' \(did you mean 'cause'\?\)"):
        rank_correlations(table, ["caus"])


# --- matched model ---------------------------------------------------------------------------------------


def test_given_the_cause_its_companion_is_not_one() -> None:
    alone, both, p = [], [], []
    for seed in range(8):
        table = study(seed, cause=0.8, spread=0.2)
        alone.append(matched_logit(table, ["companion"]).terms.iloc[0]["p"])
        terms = matched_logit(table, ["cause", "companion"], covariates=["clean"]).terms.set_index("term")
        both.append(terms.loc["cause", "p_holm"])
        p.append(terms.loc["companion", "p"])
    assert max(alone) < 0.05
    assert max(both) < 0.05
    assert within(sum(value < 0.05 for value in p), 8, 0.05)


def test_the_odds_ratio_is_the_planted_one() -> None:
    table = study(1, cause=0.7, images=250, targets=4, spread=0.0)
    found = matched_logit(table, ["cause"]).terms.iloc[0]
    sets = table.groupby(["task", "attack", "epsilon", "image"])
    mixed = sets["fooled"].transform("nunique") == 2
    inside = (table["cause"] - sets["cause"].transform("mean"))[mixed]
    planted = np.exp(0.7 * inside.std(ddof=0))
    assert found["low"] < planted < found["high"]
    assert found["odds_ratio"] == pytest.approx(planted, rel=0.25)


def test_false_findings_of_the_matched_model_stay_at_their_level() -> None:
    """Images come back under several attacks: errors that took those for new ones would be too small."""
    p = [
        matched_logit(study(seed, attacks=3, images=40, tasks=1, targets=4), ["noise"]).terms.iloc[0]["p"]
        for seed in range(40)
    ]
    assert within(sum(value < 0.05 for value in p), 40, 0.05)


def test_what_has_a_value_per_target_or_per_image_gets_no_interval() -> None:
    found = matched_logit(study(0, cause=1.0), ["cause", "by_target", "by_image"])
    terms = found.terms.set_index("term")
    assert terms.loc["by_target", "note"] == "the same for all images of a target: tested between targets only"
    assert np.isnan(terms.loc["by_target", "p"])
    assert terms.loc["by_target", "odds_ratio"] > 0
    assert terms.loc["by_image", "note"] == "the same for all targets of an image"
    assert np.isnan(terms.loc["by_image", "odds_ratio"])
    assert found.images <= 120


def test_collinear_diagnostics_are_said_to_be() -> None:
    table = study(0, cause=1.0)
    table["twin"] = table["cause"] + 0.01 * table["noise"]
    terms = matched_logit(table, ["cause", "twin"]).terms
    assert (terms["note"] == "collinear: cannot be told from the others").all()
    assert (terms["inflation"] > 1000).all()


def test_as_many_sets_as_asked_for_and_what_is_left_out_is_said() -> None:
    table = study(0, cause=1.0, attacks=2)
    found = matched_logit(table, ["cause"], most=30)
    whole = matched_logit(table, ["cause"])
    assert (found.sets, found.sets + found.left_out) == (30, whole.sets)
    with pytest.raises(UserError, match="no image fools some targets and not others"):
        matched_logit(table.assign(fooled=True), ["cause"])
    with pytest.raises(UserError, match="oracle tell who is fooled without fail"):
        matched_logit(table.assign(oracle=table["fooled"].astype(float)), ["oracle"])


# --- generalising ----------------------------------------------------------------------------------------


def test_a_left_out_target_is_predicted_by_the_cause() -> None:
    found = leave_one_target_out(study(0, cause=1.5), ["cause"])
    assert found.auc > 0.7
    assert found.interval.low > 0.6
    assert found.p < 0.05
    assert found.r2 > 0.3


def test_a_left_out_target_is_not_predicted_by_noise() -> None:
    found = [
        leave_one_target_out(study(seed, images=40, targets=4), ["noise"], permutations=19) for seed in range(30)
    ]
    assert within(sum(one.p <= 0.05 for one in found), 30, 0.05)
    assert abs(np.mean([one.auc for one in found]) - 0.5) < 0.03


def test_one_target_cannot_be_left_out() -> None:
    table = study(0, targets=1)
    with pytest.raises(UserError, match="takes two targets at least"):
        leave_one_target_out(table, ["noise"])


# --- mediation -------------------------------------------------------------------------------------------


def chain(seed: int, through: float, beside: float) -> pd.DataFrame:
    """A merge that moves a diagnostic by 1, which moves the outcome by ``through``; it moves it by ``beside`` too."""
    random = np.random.default_rng(seed)
    count = 300
    base = random.normal(size=count)
    parts = []
    for target, moved in (("base", 0.0), ("merge", 1.0)):
        diagnostic = base + moved + random.normal(size=count)
        outcome = base + through * diagnostic + beside * moved + random.normal(size=count)
        parts.append(
            pd.DataFrame(
                {
                    "task": np.where(np.arange(count) < 150, "a", "b"),
                    "attack": "fgsm",
                    "epsilon": 0.1,
                    "target": target,
                    "image": np.arange(count),
                    "d": diagnostic,
                    "y": outcome,
                }
            )
        )
    return pd.concat(parts)


@pytest.mark.parametrize(("through", "beside", "share"), [(1.0, 0.0, 1.0), (0.5, 0.5, 0.5), (0.0, 1.0, 0.0)])
def test_the_share_that_goes_through_the_diagnostic(through: float, beside: float, share: float) -> None:
    found = pd.concat(
        [mediated_share(chain(seed, through, beside), "d", "base", outcome="y") for seed in range(40)]
    )
    assert found["total"].mean() == pytest.approx(1, abs=0.1)
    assert found["share"].mean() == pytest.approx(share, abs=0.05)
    missed = (found["share_low"] > share) | (found["share_high"] < share)
    assert within(int(missed.sum()), 40, 0.05)


def test_where_there_is_no_effect_there_is_no_share() -> None:
    found = pd.concat([mediated_share(chain(seed, 0.0, 0.0), "d", "base", outcome="y") for seed in range(40)])
    assert within(int(found["share"].notna().sum()), 40, 0.05)
    with pytest.raises(UserError, match="there is no target 'bas'"):
        mediated_share(chain(0, 0, 0), "d", "bas", outcome="y")


def test_a_diagnostic_that_moves_alike_everywhere_cannot_be_told_from_the_merge() -> None:
    table = chain(0, 0.0, 1.0)
    table["d"] = (table["target"] == "merge").astype(float)
    assert mediated_share(table, "d", "base", outcome="y")["share"].isna().all()
