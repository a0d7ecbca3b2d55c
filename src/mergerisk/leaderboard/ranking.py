"""Comparable entries in one table: every method under its worst attacker, and the ranks it may have.

Methods are compared pair by pair on the same images, as reports compare them
(:func:`mergerisk.statistics.standings`): the error of a difference is a bootstrap's of images within tasks, and
Holm's procedure bounds the chance that any two equals are told apart. A method's rank interval goes from one more
than the number of those told apart from it as safer to the number of all less those told apart as riskier; so with
95 % confidence all intervals hold the true ranks at once (Mogstad, Romano, Shaikh and Wilhelm 2024; Al Mohamad,
Goeman and van Zwet 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mergerisk.leaderboard.terms import Terms, terms_of, threat_model
from mergerisk.report.accuracy import mean_accuracy
from mergerisk.report.cells import average_over_seeds, axes_of
from mergerisk.report.epsilon50 import epsilon50_table
from mergerisk.report.pareto import pareto_front
from mergerisk.report.risk import Mean, risk_table
from mergerisk.report.worst import WorstAttacker, rated, worst_attackers
from mergerisk.statistics import standings, tables_from_outcomes
from mergerisk.study.paths import without_places

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mergerisk.leaderboard.entries import Entry
    from mergerisk.report.epsilon50 import MedianEpsilon50
    from mergerisk.statistics import Standings


@dataclass(frozen=True)
class Row:
    """One method of one entry.

    Attributes:
        entry: its name.
        method: what the study calls it.
        base: what its ingredients were fine-tuned from.
        rank: by ASR, the safest first; equals share one.
        rank_low: the best rank that it may have;
        rank_high: the worst.
        asr: under the worst attacker at the table's budget, mean over tasks and attacks.
        images: that ASR counts.
        relative_asr: ASR over that of the surrogate itself.
        epsilon50: the median budget that fools half of the images; None if it is not known.
        clean_accuracy: mean over whole test splits.
        attacker: whose model the worst attacker holds.
        defenses: what stands around it or trained it, every check passed, outermost first; empty of a merge as it
            is.
        made_elsewhere: whether it is a file of its own: what it has read cannot be told.
        best: whether no other method of the table is both safer and more accurate.
    """

    entry: str
    method: str
    base: str
    rank: int
    rank_low: int
    rank_high: int
    asr: Mean
    images: int
    relative_asr: Mean
    epsilon50: MedianEpsilon50 | None
    clean_accuracy: Mean
    attacker: str
    defenses: tuple[str, ...] = ()
    made_elsewhere: bool = False
    best: bool = False


@dataclass(frozen=True)
class Unranked:
    """A method that is not ranked.

    Attributes:
        entry: its name.
        method: what the study calls it.
        reason: in words.
    """

    entry: str
    method: str
    reason: str


@dataclass(frozen=True)
class Table:
    """Methods that were attacked on the same terms, the safest first.

    Attributes:
        terms: what all of them share.
        labels: the attackers, as the study files call them.
        rows: by rank.
        unranked: what is left out, and why.
        pairs: of methods;
        apart: how many are told apart.
    """

    terms: Terms
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    unranked: tuple[Unranked, ...]
    pairs: int
    apart: int

    @property
    def epsilon(self) -> float:
        """The budget of ASRs and ranks."""
        return self.terms.reference


def rank(entries: Iterable[Entry]) -> tuple[Table, ...]:
    """Entries, table by table: those of one table share their terms; the largest table first.

    Args:
        entries: checked; see :mod:`mergerisk.leaderboard.checking`.
    """
    known = sorted(((terms_of(entry), entry) for entry in entries), key=lambda pair: (repr(pair[0]), pair[1].name))
    tables = [
        _table(terms, [entry for _, entry in group]) for terms, group in groupby(known, key=lambda pair: pair[0])
    ]
    return tuple(sorted(tables, key=lambda table: -len(table.rows)))


def _table(terms: Terms, entries: Sequence[Entry]) -> Table:
    unranked = [one for entry in entries for one in not_shown(entry)]
    left_out = {(one.entry, one.method) for one in unranked}
    worst: dict[tuple[str, str], WorstAttacker] = {}
    rows: dict[tuple[str, str], Row] = {}
    for entry in entries:
        found = _worst(entry, terms.reference)
        accuracies = mean_accuracy(entry.summary.accuracy, axes_of(entry.summary))
        for method in entry.run.study.ranked:
            key = entry.name, method
            if key in left_out:
                continue
            if method not in found:
                unranked.append(Unranked(*key, "no image counts: no attacker and method are both right on one"))
                continue
            worst[key] = found[method]
            rows[key] = _row(entry, method, found[method], accuracies[method])
    standing = _standing(terms, entries, worst)
    ranked = _with_ranks(rows, standing)
    return Table(
        terms,
        tuple(dict.fromkeys(label for entry in entries for label in threat_model(entry))),
        ranked,
        tuple(unranked),
        len(standing.pairs) if standing else 0,
        standing.pairs_apart if standing else 0,
    )


def _worst(entry: Entry, epsilon: float) -> dict[str, WorstAttacker]:
    summary = entry.summary
    axes, cells = axes_of(summary), average_over_seeds(summary.results)
    here = next(one for one in axes.epsilons if math.isclose(one, epsilon))
    medians = epsilon50_table(summary.epsilon50, axes)
    return worst_attackers(summary, axes, cells, risk_table(cells, axes), medians, here)


def _row(entry: Entry, method: str, found: WorstAttacker, accuracy: Mean) -> Row:
    study = entry.run.study
    kinds = {label: spec.name for spec in study.defenses for label in spec.labels}
    defenses, layer = [], method
    while layer in study.defended:
        defenses.append(kinds[layer])
        layer = study.defended[layer]
    return Row(
        entry=entry.name,
        method=method,
        base=without_places(study.backbone),
        rank=0,
        rank_low=0,
        rank_high=0,
        asr=found.asr,
        images=found.images,
        relative_asr=found.relative,
        epsilon50=found.epsilon50,
        clean_accuracy=accuracy,
        attacker=found.surrogate,
        defenses=tuple(defenses),
        made_elsewhere=layer in {spec.label for spec in study.targets},
    )


def _standing(
    terms: Terms, entries: Sequence[Entry], worst: Mapping[tuple[str, str], WorstAttacker]
) -> Standings | None:
    """How the methods of all entries stand, each under its own worst attacker, paired on the images that they
    share; None where nothing can be compared."""
    names = {key: f"{place}" for place, key in enumerate(worst)}
    parts = []
    for entry in entries:
        seeds = {
            seed: place for place, seed in enumerate(entry.run.study.seeds)
        }  # replicates, whatever their number
        at = entry.run.outcomes[np.isclose(entry.run.outcomes["epsilon"], terms.reference)]
        for method in entry.run.study.ranked:
            key = entry.name, method
            if key in worst:
                mine = at[(at["target"] == method) & (at["surrogate"] == worst[key].surrogate)]
                parts.append(
                    mine.assign(
                        task=mine["task"].astype(str),
                        attack=mine["attack"].astype(str),
                        surrogate="the worst attacker",
                        target=names[key],
                        epsilon=terms.reference,
                        seed=mine["seed"].map(seeds),
                    )
                )
    if not parts:
        return None
    tables = tables_from_outcomes(pd.concat(parts, ignore_index=True), merges=names.values())
    found = standings(tables, [*names.values()], rows=np.ones(len(tables.rates), dtype=bool))
    return rated(found[0], {names[key]: value for key, value in worst.items()}) if found else None


def _with_ranks(rows: Mapping[tuple[str, str], Row], standing: Standings | None) -> tuple[Row, ...]:
    """The rows by rank, with what ranks they may have."""
    keys = {f"{place}": key for place, key in enumerate(rows)}
    safer, riskier = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
    compared = {method.name for method in standing.methods} if standing else set()
    for pair in standing.pairs if standing else ():
        if pair.apart:
            safer[pair.second] += 1
            riskier[pair.first] += 1
    front = pareto_front(
        {name: (rows[key].clean_accuracy.value, rows[key].asr.value) for name, key in keys.items()}
    )
    found = []
    for name, key in keys.items():
        row = rows[key]
        place = 1 + sum(round(other.asr.value, 12) < round(row.asr.value, 12) for other in rows.values())
        low, high = (1 + safer[name], len(rows) - riskier[name]) if name in compared else (1, len(rows))
        best = name in front and len(rows) > 1
        found.append(replace(row, rank=place, rank_low=min(low, place), rank_high=max(high, place), best=best))
    return tuple(sorted(found, key=lambda row: (row.rank, row.entry)))


def not_shown(entry: Entry) -> tuple[Unranked, ...]:
    """Defended methods that may not be listed as such: nobody who knows the defense attacked them, or a check
    failed or is missing. How safe they look may be the attacks' weakness, so they are not ranked."""
    study = entry.run.study
    known = {spec.knows for spec in study.surrogates}
    offers = {offer.priced.target: offer for offer in entry.summary.prices.offers} if entry.summary.prices else {}
    found = []
    for method in study.defended:
        offer = offers.get(method)
        if method not in known:
            reason = "defended, and attacked by nobody who knows the defense"
        elif offer is None or not offer.checks:
            reason = "defended, and never checked: nobody can tell a defense from an attack that fails"
        elif offer.not_shown:
            reason = f"defended, and not shown to be: {', '.join(offer.not_shown)} failed or missing"
        else:
            continue
        found.append(Unranked(entry.name, method, reason))
    return tuple(found)
