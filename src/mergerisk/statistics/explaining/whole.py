"""Every measure held against every attacker's outcomes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.errors import UserError, did_you_mean
from mergerisk.seeds import numpy_generator
from mergerisk.statistics.correction import holm
from mergerisk.statistics.explaining.beside import CLEAN, beside
from mergerisk.statistics.explaining.correlation import EPSILON50, rank_correlations
from mergerisk.statistics.explaining.explained import (
    Correlation,
    Explained,
    Explanation,
    Explanations,
    Mediated,
    Odds,
    Predicted,
    Unsaid,
)
from mergerisk.statistics.explaining.generalising import leave_one_target_out
from mergerisk.statistics.explaining.matched import AlikeError, matched_logit
from mergerisk.statistics.explaining.mediation import mediated_share
from mergerisk.statistics.explaining.points import points_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mergerisk.statistics.explaining.beside import Beside
    from mergerisk.statistics.explaining.explained import Answer, Level, NullLine
    from mergerisk.statistics.explaining.matched import MatchedModel

WORST = "worst"
"""The attacker who holds, of every method, the surrogate that is the worst for it, as whoever asks defines it."""

FEWEST_METHODS, FEWEST_IMAGES = 3, 10
"""Of fewer nothing is said."""

_SETS, _ROWS = 1000, 3000
"""What costly fits are given, drawn image by image."""

_TWINS = 0.95
"""Of measures that go together more closely than this on one image, one is in the model with all."""

_MOST_MISSING = 0.2
"""A measure of which more is missing is not put into a model with others: every row would lack something."""


@dataclass(frozen=True)
class _How:
    """How it is tested."""

    level: float
    permutations: int
    refits: int
    seed: int


def explain(
    outcomes: pd.DataFrame,
    causes: pd.DataFrame,
    pair_causes: pd.DataFrame | None = None,
    clean: pd.DataFrame | None = None,
    *,
    methods: Collection[str] | None = None,
    worst: Mapping[str, str] | None = None,
    nulls: Sequence[NullLine] = (),
    level: float = 0.05,
    permutations: int = 1999,
    refits: int = 39,
    seed: int = 0,
    listen: Callable[[int, int], None] = lambda _done, _total: None,
) -> Explanations:
    """What explains who is fooled: every measure of a run's diagnostics held against its outcomes, with the
    attacks of every surrogate and of each method's worst one. None of this makes a cause of a companion.

    Correlations are of ranks, between methods of those of means without extremes. Models (same image, prediction,
    mediation) are given each measure's normal scores inside its task, so that a few huge ratios do not stand for
    all images.

    Args:
        outcomes: per image, as a run keeps them.
        causes: ``causes.parquet`` of the same run.
        pair_causes: its ``pair_causes.parquet``.
        clean: its ``clean.parquet``.
        methods: the targets that are compared; by default all.
        worst: method → the surrogate that is its worst attacker; a method that it lacks is not among those that
            the worst one is explained of. It may be left out where one surrogate alone is explained.
        nulls: surrogates of null lines, which are shown beside, not explained, unless there is no other, or one is
            a method's worst attacker.
        level: of the tests, of each of the three questions by itself, over all measures.
        permutations: of what is tested between methods.
        refits: of the test of predictions under the worst attacker, each of which fits all models again.
        seed: of whatever is drawn.
        listen: told how much is done, and of how much.

    Raises:
        UserError: there is nothing to compare; see :func:`mergerisk.statistics.explaining.beside.beside`. Or
            ``worst`` is needed and left out, or names a surrogate that attacks nothing.
    """
    found = beside(outcomes, causes, pair_causes, clean, targets=methods)
    how = _How(level, permutations, refits, seed)
    every = list(dict.fromkeys(found.rows["surrogate"]))
    beside_them = {null.surrogate for null in nulls}
    names = [name for name in every if name not in beside_them] or every
    chosen = _chosen(worst, names, every, found.targets)
    alone = len(names) == 1 and set(chosen.values()) == set(names)
    work = _Work(listen, (1 if alone else len(names) + 1) * len(found.measures))
    held = found.rows["target"].map(chosen) == found.rows["surrogate"]
    of_worst = _explained(WORST, chosen, found.rows[held].reset_index(drop=True), found, how, work)
    attackers = (
        (replace(of_worst, attacker=names[0], chosen={}),)
        if alone
        else tuple(_explained(name, {}, found.of(name), found, replace(how, refits=0), work) for name in names)
    )
    return Explanations(level, of_worst, attackers, tuple(nulls), points_of(found))


def _chosen(
    worst: Mapping[str, str] | None, names: Sequence[str], every: Sequence[str], methods: Sequence[str]
) -> dict[str, str]:
    """Method → its worst attacker, of the methods that are compared."""
    if worst is None:
        if len(names) > 1:
            raise UserError(
                f"attacks are made on {len(names)} surrogates ({', '.join(names)}): say which of them is each "
                "method's worst attacker, worst={method: surrogate}"
            )
        return dict.fromkeys(methods, names[0])
    chosen = {name: worst[name] for name in methods if name in worst}
    for name in chosen.values():
        if name not in every:
            raise UserError(f"worst: no attack is made on {name!r}{did_you_mean(name, every)}")
    if not chosen:
        raise UserError(f"worst: names none of the methods that are compared, which are {', '.join(methods)}")
    return chosen


class _Work:
    """How much is done."""

    def __init__(self, listen: Callable[[int, int], None], total: int) -> None:
        self._listen, self._total, self._done = listen, total, 0

    def step(self) -> None:
        self._done += 1
        self._listen(self._done, self._total)


def _explained(
    attacker: str, chosen: Mapping[str, str], table: pd.DataFrame, found: Beside, how: _How, work: _Work
) -> Explanation:
    measures = found.measures
    names = [measure.name for measure in measures]
    there = set(table["target"])
    methods = tuple(name for name in found.targets if name in there)
    once = table.drop_duplicates(["task", "image", "target"]).reset_index(drop=True)
    images = len(once.drop_duplicates(["task", "image"]))
    unsaid = {m.name: _unsaid(once, m.name, len(methods), images) for m in measures}
    tested = {level: [n for n in names if unsaid[n][level] is None] for level in _LEVELS}
    clipped = found.clipped(table)
    outcome_of = {"epsilon50": EPSILON50, "asr": "fooled"}
    between = {
        key: _correlations(clipped, tested["methods"], outcome, "targets", how)
        for key, outcome in outcome_of.items()
    }
    inside = _correlations(table, tested["images"], "fooled", "images", how)
    scored = _scored(table, once, tested["images"])
    matched = _Matched(_deviating(scored, tested["same_image"]), once, tested["same_image"], how)
    small = _thinned(scored, _ROWS, how.seed)
    possible = [n for n in tested["same_image"] if once[n].isna().mean() <= _MOST_MISSING]
    reference = _ends(table)
    pairs = [(chosen.get(target, attacker), target) for target in methods]
    explained = []
    for measure in measures:
        name, why = measure.name, unsaid[measure.name]
        correlations = {key: why["methods"] or between[key][name] for key in outcome_of}
        among = why["images"] or inside[name]
        odds = why["same_image"] or matched.of(name)
        predicted = why["images"] or _predicted(small, [name], how)
        mediated = why["same_image"] or _mediated(scored, name, reference, how)
        explained.append(
            Explained(
                name,
                measure.per,
                measure.part,
                _reasons(found, pairs, name),
                correlations["epsilon50"],
                correlations["asr"],
                among,
                odds,
                predicted,
                mediated,
                {
                    "methods": _between(correlations["epsilon50"], len(methods), len(tested["methods"]), how),
                    "same_image": _answer(odds, how),
                    "images": _answer(among, how),
                },
            )
        )
        work.step()
    together: Predicted | Unsaid = _predicted(small, possible, how) if possible else Unsaid("all_missing")
    explained.sort(key=lambda one: (-list(one.answers.values()).count("yes"), -one.strength))
    return Explanation(attacker, chosen, methods, images, together, tuple(explained))


_LEVELS: tuple[Level, ...] = ("methods", "same_image", "images")


def _unsaid(once: pd.DataFrame, name: str, methods: int, images: int) -> dict[Level, Unsaid | None]:
    """Why nothing can be said of a measure, by level; None where there is no reason."""
    rows = once.dropna(subset=[name])
    everywhere: Unsaid | None = None
    if rows.empty:
        everywhere = Unsaid("all_missing")
    elif images < FEWEST_IMAGES:
        everywhere = Unsaid("few_images", str(images))
    elif rows[name].nunique() < 2:
        everywhere = Unsaid("constant")
    if everywhere is not None:
        return dict.fromkeys(_LEVELS, everywhere)
    few = Unsaid("few_methods", str(methods)) if methods < FEWEST_METHODS else None
    by_method = rows.groupby(["task", "target"])[name].nunique().max() < 2
    # With several surrogates, what is theirs alone tells no methods apart either.
    by_image = rows.groupby(["surrogate", "task", "image"])[name].nunique().max() < 2
    across = Unsaid("by_image") if by_image else None
    of_images = Unsaid("by_method") if by_method else None
    single = Unsaid("few_methods", str(methods)) if methods < 2 else None
    return {"methods": few or across, "same_image": single or across or of_images, "images": of_images}


def _correlations(
    table: pd.DataFrame, names: list[str], outcome: str, between: Literal["images", "targets"], how: _How
) -> dict[str, Correlation | Unsaid]:
    if not names:
        return {}
    rows = rank_correlations(
        table, names, outcome=outcome, between=between, permutations=how.permutations, seed=how.seed
    )
    numbers = rows[["correlation", "low", "high", "p", "p_holm"]].to_numpy(np.float64).tolist()
    return {
        name: Unsaid("constant") if math.isnan(value) else Correlation(value, low, high, p, p_holm, int(blocks))
        for name, (value, low, high, p, p_holm), blocks in zip(names, numbers, rows["blocks"], strict=True)
    }


class _Matched:
    """Each measure by itself on the same image, clean accuracy held fixed; and all in one model."""

    def __init__(self, table: pd.DataFrame, once: pd.DataFrame, names: list[str], how: _How) -> None:
        self.covariates = [CLEAN] if table[CLEAN].notna().all() else []
        fits = {name: self.fit(table, [name], how) for name in names}
        found = {name: fit for name, fit in fits.items() if not isinstance(fit, Unsaid)}
        self.terms = {name: _figures(fit)[name] for name, fit in found.items()}
        self.sets = {name: fit.sets for name, fit in found.items()}
        self.refused = {name: fit for name, fit in fits.items() if isinstance(fit, Unsaid)}
        p = holm(pd.Series([term["p"] for term in self.terms.values()], dtype=float))
        self.p_holm = dict(zip(self.terms, np.asarray(p, dtype=float).tolist(), strict=True))
        inside = once[names] - once.groupby(["task", "image"])[names].transform("mean") if names else once[names]
        close = inside.rank().corr().abs() if names else pd.DataFrame()
        self.close = close.where(~np.eye(len(names), dtype=bool))
        kept: list[str] = []
        for name in self.terms:
            if once[name].isna().mean() <= _MOST_MISSING and not (self.close.loc[name, kept] > _TWINS).any():
                kept.append(name)
        together = self.fit(table, kept, how) if kept else Unsaid("all_missing")
        self.together = {} if isinstance(together, Unsaid) else _figures(together)

    def fit(self, table: pd.DataFrame, names: list[str], how: _How) -> MatchedModel | Unsaid:
        try:
            return matched_logit(table, names, covariates=self.covariates, most=_SETS, seed=how.seed)
        except AlikeError:
            return Unsaid("alike")
        except UserError as error:
            return Unsaid("refused", str(error))

    def of(self, name: str) -> Odds | Unsaid:
        if name in self.refused:
            return self.refused[name]
        own = self.terms[name]
        if math.isnan(own["odds_ratio"]):
            return Unsaid("constant")
        joint = self.together.get(name, {})
        close = self.close[name].dropna()
        return Odds(
            own["odds_ratio"],
            own["low"],
            own["high"],
            own["p"],
            self.p_holm[name],
            self.sets[name],
            joint.get("odds_ratio", math.nan),
            joint.get("inflation", math.nan),
            str(close.idxmax()) if len(close) else "",
            float(close.max()) if len(close) else math.nan,
        )


def _figures(fit: MatchedModel) -> dict[str, dict[str, float]]:
    """The numbers of a fitted model, by term."""
    names = ["odds_ratio", "low", "high", "p", "inflation"]
    rows = fit.terms[names].to_numpy(np.float64).tolist()
    return {
        str(term): dict(zip(names, row, strict=True)) for term, row in zip(fit.terms["term"], rows, strict=True)
    }


def _predicted(table: pd.DataFrame, names: list[str], how: _How) -> Predicted | Unsaid:
    try:
        found = leave_one_target_out(table, names, permutations=how.refits, seed=how.seed)
    except UserError as error:
        return Unsaid("refused", str(error))
    return Predicted(found.auc, found.interval.low, found.interval.high, found.p, found.null, found.r2)


def _ends(table: pd.DataFrame) -> tuple[str, str]:
    """The methods that are fooled least and most often, over blocks."""
    cells = table.groupby(["task", "attack", "epsilon", "target"], sort=False)["fooled"].mean()
    means = cells.groupby("target", sort=False).mean()
    return str(means.idxmin()), str(means.idxmax())


def _mediated(table: pd.DataFrame, name: str, ends: tuple[str, str], how: _How) -> Mediated | Unsaid:
    safest, riskiest = ends
    rows = table[table["target"].isin(ends)]
    if safest == riskiest or rows.dropna(subset=[name])["target"].nunique() < 2:
        return Unsaid("few_methods")
    found = mediated_share(rows, name, safest, seed=how.seed).iloc[0]
    columns = ("total", "share", "share_low", "share_high")
    return Mediated(safest, riskiest, *(float(found[column]) for column in columns))


def _answer(found: Correlation | Odds | Unsaid, how: _How) -> Answer:
    if isinstance(found, Unsaid) or math.isnan(found.p_holm):
        return "untold"
    return "yes" if found.p_holm < how.level else "no"


def _between(found: Correlation | Unsaid, methods: int, measures: int, how: _How) -> Answer:
    """The answer between methods, of which there may be too few for any order to pass the correction."""
    answer = _answer(found, how)
    least = 1 / math.factorial(methods) + 1 / (how.permutations + 1)
    return "untold" if answer == "no" and least * measures >= how.level else answer


def _scored(table: pd.DataFrame, once: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The table with normal scores of each measure inside its task in its place."""
    if not names:
        return table
    grouped = once.groupby("task")[names]
    shares = (grouped.rank() - 0.5) / grouped.transform("count")
    keys = ["surrogate", "task", "image", "target"]
    scores = pd.DataFrame(stats.norm.ppf(shares), columns=names, index=once.index)
    return table.drop(columns=names).merge(pd.concat([once[keys], scores], axis=1), "left", keys)


def _deviating(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Each measure less its method's mean in the task: what a method is like is one value, which any number of
    images would seem to prove."""
    if not names:
        return table
    means = table.groupby(["task", "target"])[names].transform("mean")
    return table.assign(**(table[names] - means))


def _thinned(table: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Rows of images drawn at random, as many of each task, so that there are about ``most``."""
    share = most / max(1, len(table))
    if share >= 1:
        return table
    random = numpy_generator(seed, "explaining", "thinned")
    images = table[["task", "image"]].drop_duplicates()
    rank = pd.Series(random.random(len(images)), index=images.index)
    kept = images[rank.groupby(images["task"]).rank(pct=True) <= share]
    return table.merge(kept, "inner", ["task", "image"])


def _reasons(found: Beside, pairs: Sequence[tuple[str, str]], name: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for pair in pairs:
        for reason, count in found.missing.get((*pair, name), {}).items():
            total[reason] = total.get(reason, 0) + count
    return total
