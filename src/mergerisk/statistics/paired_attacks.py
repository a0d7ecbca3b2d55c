"""Attacks on several targets, as far as images and resamples of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mergerisk.seeds import numpy_generator
from mergerisk.statistics.curves import crossings
from mergerisk.statistics.priced import UNKNOWN, Bounded, Price
from mergerisk.transfer.rates import what_happened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.priced import Holder

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attacked:
    """One attack from one surrogate on one target.

    Attributes:
        rows: of every image and seed, which one it is; rising.
        task: of each, by number.
        cluster: task and image, by number: what is resampled.
        counts: whether surrogate and target name it rightly when clean.
        wrong: rows × budgets: the target does not under attack; likewise
        surrogate_wrong: the surrogate.
    """

    rows: NDArray[np.int64]
    task: NDArray[np.int64]
    cluster: NDArray[np.int64]
    counts: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    surrogate_wrong: NDArray[np.bool_]

    def of(self, kept: NDArray[Any]) -> Attacked:
        """Some of the rows."""
        return Attacked(
            self.rows[kept],
            self.task[kept],
            self.cluster[kept],
            self.counts[kept],
            self.wrong[kept],
            self.surrogate_wrong[kept],
        )


class Seen:
    """Outcomes by target, surrogate and attack, and the resamples that all share."""

    def __init__(self, outcomes: pd.DataFrame, seed: int, resamples: int) -> None:
        self.epsilons = np.unique(outcomes["epsilon"].to_numpy())
        happened = what_happened(outcomes)
        codes = {name: np.unique(outcomes[name].astype(str), return_inverse=True) for name in ("task", "seed")}
        tasks, task = codes["task"]
        images = outcomes["image"].to_numpy()
        most = int(images.max(initial=0)) + 1
        cluster = task * most + images
        row = cluster * len(codes["seed"][0]) + codes["seed"][1]
        self._made: dict[tuple[str, str], dict[str, Attacked]] = {}
        names = outcomes[["target", "surrogate", "attack"]].astype(str)
        groups: dict[Any, Any] = names.groupby([*names.columns], sort=False).indices
        for (target, surrogate, attack), places in groups.items():
            order = places[np.lexsort((outcomes["epsilon"].to_numpy()[places], row[places]))]
            first = order.reshape(-1, len(self.epsilons))
            found = Attacked(
                row[first[:, 0]],
                task[first[:, 0]],
                cluster[first[:, 0]],
                happened.counts[first[:, 0]],
                happened.target_wrong[first],
                happened.surrogate_wrong[first],
            )
            self._made.setdefault((str(target), str(surrogate)), {})[str(attack)] = found
        self._weights = np.zeros((resamples, len(tasks) * most), dtype=np.float32)
        for number, name in enumerate(tasks):
            here = np.unique(cluster[task == number])
            draws = numpy_generator(seed, "prices", str(name)).multinomial(
                len(here), np.full(len(here), 1 / len(here)), resamples
            )
            self._weights[:, here] = draws

    def __contains__(self, pair: object) -> bool:
        return pair in self._made

    def strongest(self, target: str, surrogate: str) -> tuple[str, Attacked]:
        """The attack with the highest mean ASR over budgets and tasks, of equals the first."""
        attacks = self._made[target, surrogate]
        name = max(attacks, key=lambda attack: self._strength(attacks[attack]))
        return name, attacks[name]

    def rates(self, target: str, surrogate: str) -> Floats:
        """The mean ASR over tasks of :meth:`strongest`, by budget; NaN where no image counts."""
        made = self.strongest(target, surrogate)[1]
        made = made.of(made.counts)
        return _curve(made.task, made.wrong) if len(made.rows) else np.full(len(self.epsilons), np.nan)

    def worst(self, target: str, surrogates: Iterable[str]) -> str | None:
        """The surrogate whose strongest attack has the lowest ε50, of equals the highest mean ASR."""
        known = [name for name in surrogates if (target, name) in self]

        def risk(surrogate: str) -> tuple[float, float]:
            made = self.strongest(target, surrogate)[1]
            made = made.of(made.counts)
            if not len(made.rows):
                return -np.inf, -1.0
            half = float(crossings(_curve(made.task, made.wrong)[None], self.epsilons)[0])
            return -half, self._strength(made)

        return max(known, key=risk, default=None)

    def price(self, target: str, holder: Holder, undefended: str, beside: str | None, epsilon: float) -> Price:
        """One attacker, and another on the undefended target: all on the images that all of them name rightly."""
        attack, mine = self.strongest(target, holder.surrogate)
        if beside is None:
            other_attack, other = "", None
            mine = mine.of(mine.counts)
        else:
            other_attack, other = self.strongest(undefended, beside)
            mine, other = mine.of(mine.counts), other.of(other.counts)
            _, first, second = np.intersect1d(mine.rows, other.rows, assume_unique=True, return_indices=True)
            mine, other = mine.of(first), other.of(second)
        at = int(np.argmin(np.abs(self.epsilons - epsilon)))

        def half(rates: _Rates) -> Floats:
            return crossings(rates.wrong, self.epsilons)

        def inside(rates: _Rates) -> Floats:
            return np.clip(half(rates), self.epsilons[0], self.epsilons[-1])

        def asr(rates: _Rates) -> Floats:
            return rates.wrong[:, at]

        def relative(rates: _Rates) -> Floats:
            own = rates.surrogate_wrong[:, at]
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(own > 0, rates.wrong[:, at] / own, np.nan)

        alone = [self._figure(function, mine) for function in (half, asr, relative)]
        beyond = (
            [UNKNOWN] * 3
            if other is None
            else [self._figure(function, other) for function in (half, asr, relative)]
        )
        together = [UNKNOWN] * 2
        if other is not None:
            together = [
                self._figure(lambda m, o: inside(m) / inside(o), mine, other),
                self._figure(lambda m, o: relative(m) - relative(o), mine, other),
            ]
        return Price(
            holder.surrogate,
            holder.kind,
            attack,
            beside or "",
            other_attack,
            len(mine.rows),
            alone[0],
            beyond[0],
            together[0],
            bound(alone[0].value, beyond[0].value),
            alone[1],
            beyond[1],
            alone[2],
            beyond[2],
            together[1],
        )

    def _strength(self, made: Attacked) -> float:
        made = made.of(made.counts)
        return float(_curve(made.task, made.wrong).mean()) if len(made.rows) else -1.0

    def _figure(self, function: Callable[..., Floats], *made: Attacked) -> Bounded:
        """A function of attacks' rates, resamples × budgets, with the percentiles of what resamples give."""
        if not all(len(one.rows) for one in made):
            return UNKNOWN
        point = float(function(*(_Rates.of(one, None) for one in made))[0])
        drawn = function(*(_Rates.of(one, self._weights) for one in made))
        drawn = drawn[~np.isnan(drawn)]
        if 2 * len(drawn) < len(self._weights):
            return Bounded(point, np.nan, np.nan)
        # Order statistics: nothing lies between a number and infinity.
        low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
        return Bounded(point, float(low), float(high))


@dataclass(frozen=True, eq=False)
class _Rates:
    """Mean ASRs over tasks, resamples × budgets, of the target and of the surrogate."""

    wrong: Floats
    surrogate_wrong: Floats

    @classmethod
    def of(cls, made: Attacked, weights: NDArray[np.float32] | None) -> _Rates:
        return cls(*(_means(made, part, weights) for part in (made.wrong, made.surrogate_wrong)))


def _means(made: Attacked, values: NDArray[np.bool_], weights: NDArray[np.float32] | None) -> Floats:
    rates = []
    for task in np.unique(made.task):
        here = made.task == task
        drawn = np.ones((1, int(here.sum())), np.float32) if weights is None else weights[:, made.cluster[here]]
        total = drawn.sum(axis=1, keepdims=True, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append((drawn @ values[here].astype(np.float32)).astype(np.float64) / total)
    return np.asarray(np.mean(rates, axis=0))


def _curve(task: NDArray[np.int64], wrong: NDArray[np.bool_]) -> Floats:
    """Mean over tasks, by budget."""
    return np.asarray(np.mean([wrong[task == one].mean(axis=0) for one in np.unique(task)], axis=0))


def bound(mine: float, other: float) -> Literal["exact", "at_least", "at_most", "unknown"]:
    """What is known of a ratio of ε50s that may lie beyond the measured budgets."""
    if np.isnan(mine) or np.isnan(other) or (mine == other and (mine == 0 or np.isinf(mine))):
        return "unknown"
    if np.isinf(mine) or other == 0:
        return "at_least"
    return "at_most" if mine == 0 or np.isinf(other) else "exact"
