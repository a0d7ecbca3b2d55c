"""The best trades, measured on attacked images that no search has seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mergerisk.recommending.result import Beside, Measured
from mergerisk.recommending.scoring import worst_public
from mergerisk.report.pareto import pareto_front
from mergerisk.report.prices import holders
from mergerisk.statistics.paired_attacks import Seen
from mergerisk.statistics.priced import Bounded
from mergerisk.statistics.prices import accuracies
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Tried
    from mergerisk.report.prices import Offer, PriceList
    from mergerisk.statistics.priced import Holder, Price
    from mergerisk.study import FinishedRun

_UNAWARE = ("unaware", "unseen")


def measured(
    run: FinishedRun,
    prices: PriceList | None,
    best: Sequence[Tried],
    labels: Mapping[Recipe, str],
    given: Sequence[str],
    files: Mapping[str, str],
    *,
    seed: int = 0,
) -> tuple[tuple[Measured, ...], tuple[Measured, ...], tuple[Beside, ...]]:
    """Recipes, the study's own merges, and every one of the first beside every one of the second.

    Args:
        run: of the study that they were composed in.
        prices: of the same run.
        best: the recipes, as the search saw them.
        labels: recipe → what the run calls it.
        given: what it calls the study's own.
        files: label → the recipe's file.
        seed: of the bootstrap.
    """
    recipes = {labels[one.recipe]: one for one in best}
    every = tuple(dict.fromkeys((*recipes, *given)))
    looking = _Looking(run, prices, every, seed)
    with one_thread():
        found = {label: looking.alone(label, recipes.get(label), files.get(label, "")) for label in every}
        beside = tuple(looking.beside(label, other) for label in recipes for other in given if other != label)
    front = {*pareto_front({label: (one.accuracy.value, -one.epsilon50.value) for label, one in found.items()})}
    full = {label: replace(one, best=label in front) for label, one in found.items()}
    return tuple(full[label] for label in recipes), tuple(full[label] for label in given), beside


class _Looking:
    """Looks at the targets of a run.

    Args:
        run: that was finished.
        prices: of its defenses.
        labels: of the targets.
        seed: of the bootstrap.
    """

    def __init__(self, run: FinishedRun, prices: PriceList | None, labels: Sequence[str], seed: int) -> None:
        self._clean = run.clean
        self._seen = Seen(run.outcomes[run.outcomes["target"].isin([*labels])], seed, resamples=1000)
        self._holders = tuple(holders(run.study))
        self._epsilon = run.study.budgets.middle
        self._defended = run.study.defended
        offers: tuple[Offer, ...] = () if prices is None else prices.offers
        self._offers = {offer.priced.target: offer for offer in offers}

    def alone(self, label: str, tried: Tried | None, file: str) -> Measured:
        """A target by itself."""
        price = self._price(label, label, None)
        return Measured(
            label,
            None if tried is None else tried.recipe,
            accuracies(self._clean, label, label).defended,
            price.epsilon50,
            price.surrogate,
            price.attack,
            self._unaware(label),
            None if tried is None else tried.score,
            self._offers[label].not_shown if label in self._offers else None,
            best=False,
            file=file,
        )

    def beside(self, label: str, other: str) -> Beside:
        """A target beside another, on the same images, each under its own worst attacker."""
        price = self._price(label, other, worst_public(self._seen, other, self._holders))
        lost = accuracies(self._clean, label, other).lost
        gained = Bounded(0.0 - lost.value, 0.0 - lost.high, 0.0 - lost.low)
        return Beside(label, other, gained, price.gain, price.bound)

    def _price(self, label: str, other: str, beside: str | None) -> Price:
        return self._seen.price(label, self._worst(label, self._holders), other, beside, self._epsilon)

    def _worst(self, label: str, among: Sequence[Holder]) -> Holder:
        surrogate = worst_public(self._seen, label, among)
        return next(one for one in among if one.surrogate == surrogate)

    def _unaware(self, label: str) -> Bounded | None:
        if label not in self._defended:
            return None
        among = tuple(one for one in self._holders if one.kind in _UNAWARE)
        return self._seen.price(label, self._worst(label, among), label, None, self._epsilon).epsilon50
