"""Which method is the safest, and which cannot be told from it: one answer, for cards, pictures and audits.

Risk is how often the worst attacker fools a method: ASR, by :mod:`mergerisk.statistics.attackers`. Methods are
shown the same images, so what separates two is the difference on those images, not whether their own intervals
overlap: two methods fooled by nearly the same images are told apart by a difference far smaller than either's
interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from scipy.special import ndtr, ndtri

from mergerisk.statistics.attackers import worst_attacker
from mergerisk.statistics.cell_means import make_design
from mergerisk.statistics.claims.testing import treatment
from mergerisk.statistics.correction import holm
from mergerisk.statistics.resampling import Aggregate, Resampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from pydantic import PositiveInt

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.claim_tables import Tables
    from mergerisk.validation import NotNegative, Positive, Share


@dataclass(frozen=True)
class Standing:
    """One method under the worst attacker.

    Attributes:
        name: of the method.
        value: its ASR, mean over tasks and attacks.
        low: of its 95 % interval, over images.
        high: likewise.
    """

    name: str
    value: Share
    low: Share
    high: Share


@dataclass(frozen=True)
class PairOf:
    """Two methods on the same images.

    Attributes:
        first: the one fooled less often, or as often.
        second: the other.
        difference: second − first, a share of images, 0 or more.
        low: of its interval, at the level at which Holm's procedure tests this pair.
        high: likewise.
        p_adjusted: by Holm over all pairs.
        apart: whether the two are told apart.
    """

    first: str
    second: str
    difference: NotNegative
    low: float
    high: float
    p_adjusted: Share
    apart: bool


@dataclass(frozen=True)
class Standings:
    """Methods at one budget, the safest first.

    Attributes:
        epsilon: the budget, in [0, 1] pixel units.
        attackers: the surrogates the worst of which counts.
        methods: lowest ASR first, equals in the order given.
        pairs: every two of them.
        tasks: how many the means are over.
        attacks: likewise.
        images: of those tasks, on which differences are paired.
    """

    epsilon: Positive
    attackers: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: Annotated[tuple[Standing, ...], Field(min_length=1)]
    pairs: tuple[PairOf, ...]
    tasks: PositiveInt
    attacks: PositiveInt
    images: PositiveInt

    @property
    def leader(self) -> Standing:
        """The safest, by the figures alone."""
        return self.methods[0]

    @property
    def alike(self) -> tuple[str, ...]:
        """Those that cannot be told from the leader, by rising ASR."""
        together = {pair.second for pair in self.pairs if pair.first == self.leader.name and not pair.apart}
        return tuple(method.name for method in self.methods if method.name in together)

    @property
    def clear(self) -> bool:
        """Whether there was a choice, and all others are told from the leader."""
        return len(self.methods) > 1 and not self.alike

    @property
    def pairs_apart(self) -> int:
        """How many pairs are told apart."""
        return sum(pair.apart for pair in self.pairs)

    @property
    def cliques(self) -> tuple[tuple[str, ...], ...]:
        """Maximal runs of two or more neighbours no two of which are told apart."""
        apart = {frozenset((pair.first, pair.second)) for pair in self.pairs if pair.apart}
        names = [method.name for method in self.methods]
        found: list[tuple[str, ...]] = []
        reach = 0
        for start in range(len(names)):
            end = start + 1
            while end < len(names) and not any(
                frozenset((name, names[end])) in apart for name in names[start:end]
            ):
                end += 1
            if end > reach and end - start > 1:
                found.append(tuple(names[start:end]))
                reach = end
        return tuple(found)


def standings(
    tables: Tables,
    methods: Sequence[str],
    *,
    rows: NDArray[np.bool_] | None = None,
    seed: int = 0,
    level: float = 0.05,
    resamples: int = 1000,
) -> tuple[Standings, ...]:
    """How methods stand under the worst attacker, budget by budget.

    Means are over tasks, of means over attacks and seeds, over those cells that every method has. The standard
    error of a difference is a bootstrap's of images within tasks, the same images for all methods; so it speaks of
    other images of these tasks. Every two methods are tested by it against the normal distribution, and Holm's
    procedure bounds the chance that any two equals are told apart. No p-value is smaller than that of a sign test
    on as many images.

    Args:
        tables: with outcomes; without them nothing is paired, and there is no answer.
        methods: to compare.
        rows: which settings count; by default attacks on ``methods`` from surrogates that are no merge, or where
            there are none, from any but the method itself.
        seed: of the bootstrap, and of the halves that worst attackers are chosen on.
        level: of the tests; a method's own interval has confidence 1 − level.
        resamples: of the bootstrap.

    Returns:
        Rising budgets; those at which two methods cannot be compared have one method, or are left out.
    """
    if tables.outcomes is None or tables.rates.empty:
        return ()
    rates = tables.rates
    attacked = rates["target"].isin(list(methods)).to_numpy()
    if rows is None:
        others = attacked & (rates["surrogate"] != rates["target"]).to_numpy()
        outside = others & (rates["surrogate_role"] != "merge").to_numpy()
        rows = outside if outside.any() else others
    rows = rows & attacked
    if not rows.any():
        return ()
    names = tuple(sorted(str(name) for name in rates.loc[rows, "surrogate"].unique()))
    worst = worst_attacker(tables, rows, seed)
    resampler = Resampler(worst.tables, seed, 1 - level, resamples, "strata")
    laid_out = list(_designs(worst.tables, methods))
    aggregates = [
        Aggregate(design, "asr", partial(treatment, place))
        for _, design in laid_out
        for place in range(len(design.treatments))
    ]
    drawn = iter(resampler.resample(aggregates, ["both_correct"] * len(aggregates)))
    found = []
    asr = worst.tables.rates["asr"].to_numpy(dtype=np.float64)
    for epsilon, design in laid_out:
        values = design.matrix(asr).mean(axis=0)
        resampled = np.stack([next(drawn) for _ in design.treatments])
        moved = worst.spread * (resampled - resampled.mean(axis=1, keepdims=True))
        images = resampler.images(design.tasks)
        here = worst.tables.rates.iloc[design.rows]
        order = sorted(range(len(values)), key=lambda place: (round(float(values[place]), 12), place))
        found.append(
            Standings(
                epsilon,
                names,
                tuple(_standing(design.treatments[i], values[i], moved[i], level) for i in order),
                _pairs([design.treatments[i] for i in order], values[order], moved[order], images, level),
                len(design.units),
                here["attack"].nunique(),
                images,
            )
        )
    return tuple(found)


def _designs(tables: Tables, methods: Sequence[str]) -> Iterator[tuple[float, Design]]:
    """Per budget, tasks × methods over the cells that all methods measured there have."""
    known = tables.rates[tables.rates["asr"].notna()]
    for epsilon in sorted(set(known["epsilon"].tolist())):
        here = known[known["epsilon"] == epsilon]
        present = tuple(name for name in methods if (here["target"] == name).any())
        cell = here.groupby(["task", "attack", "seed"], observed=True)["target"].transform("nunique")
        kept = here[cell == len(present)]
        if len(kept):
            places = {name: place for place, name in enumerate(present)}
            position = np.array([places[name] for name in kept["target"]], dtype=np.intp)
            yield float(epsilon), make_design(kept, ["task"], position, present)


def _standing(name: str, value: float, moved: NDArray[np.float64], level: float) -> Standing:
    reach = float(ndtri(1 - level / 2)) * _error(moved)
    return Standing(name, float(value), max(0.0, float(value) - reach), min(1.0, float(value) + reach))


def _pairs(
    names: Sequence[str], values: NDArray[np.float64], moved: NDArray[np.float64], images: int, level: float
) -> tuple[PairOf, ...]:
    """Names and values by rising value."""
    pairs = list(combinations(range(len(names)), 2))
    differences = np.array([values[second] - values[first] for first, second in pairs]).round(12)
    errors = np.array([_error(moved[second] - moved[first]) for first, second in pairs])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(differences > 0, differences / errors, 0.0)
    p = np.maximum(2 * ndtr(-z), min(1.0, 2.0 * 0.5 ** min(images, 1000)))
    adjusted = holm(p)
    # Holm's procedure goes on as long as it finds something: what comes after stays at the level where it stopped.
    place = np.empty(len(p), dtype=np.intp)
    place[np.argsort(p, kind="stable")] = np.minimum(np.arange(len(p)), (adjusted < level).sum())
    reach = ndtri(1 - level / (len(p) - place) / 2) * errors
    return tuple(
        PairOf(
            names[first],
            names[second],
            float(difference),
            float(difference - own),
            float(difference + own),
            float(corrected),
            bool(corrected < level),
        )
        for (first, second), difference, own, corrected in zip(pairs, differences, reach, adjusted, strict=True)
    )


def _error(moved: NDArray[np.float64]) -> float:
    """The standard deviation over resamples that have a value; infinite where fewer than half have."""
    known = moved[~np.isnan(moved)]
    return float(known.std(ddof=1)) if 2 * len(known) >= len(moved) and len(known) > 1 else np.inf
