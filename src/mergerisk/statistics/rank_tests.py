"""Rank tests on blocks × treatments, and on paired values, with their effect sizes.

A block is what treatments share (a task and an attack, say), a treatment what is compared (a merging method). A
cell that was not measured is NaN; :func:`complete_blocks` leaves such blocks out and says which are left, and the
tests refuse them otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Matrix = NDArray[np.float64]


def complete_blocks(matrix: ArrayLike) -> tuple[Matrix, NDArray[np.intp]]:
    """The blocks in which every treatment was measured.

    Returns:
        Those rows, and which rows they are: the others are to be reported.
    """
    values = np.asarray(matrix, dtype=np.float64)
    kept = np.flatnonzero(~np.isnan(values).any(axis=1))
    return values[kept], kept


@dataclass(frozen=True)
class Friedman:
    """Whether treatments differ at all.

    Attributes:
        blocks: number of rows.
        treatments: number of columns.
        mean_ranks: per treatment; rank 1 is the highest value of a block, ties share the mean of their ranks.
        statistic: Friedman's χ², corrected for ties; 0 where every block is one tie.
        p_value: by the χ² distribution with treatments − 1 degrees of freedom; for two treatments it is the
            sign test's normal approximation.
        f_statistic: Iman and Davenport's (1980) F, less conservative.
        f_p_value: of it.
        kendalls_w: effect size, 0 where blocks disagree to 1 where they rank alike (Kendall and Smith 1939).
    """

    blocks: int
    treatments: int
    mean_ranks: NDArray[np.float64]
    statistic: float
    p_value: float
    f_statistic: float
    f_p_value: float
    kendalls_w: float


def friedman(matrix: ArrayLike) -> Friedman:
    """Friedman's test (1937), with Iman and Davenport's F and Kendall's W (Demšar 2006, section 3.2.2).

    Args:
        matrix: blocks × treatments, complete; at least two of each. Infinities count as ties at the end.

    Raises:
        ValueError: a cell is NaN, or there are too few blocks or treatments.
    """
    values = _checked(matrix)
    n, k = values.shape
    ranks = _ranks(values)
    mean_ranks = ranks.mean(axis=0)
    spread = ((ranks - (k + 1) / 2) ** 2).sum()  # n k (k² − 1) / 12 without ties
    if spread == 0:
        return Friedman(n, k, mean_ranks, 0.0, 1.0, 0.0, 1.0, 0.0)
    statistic = float((k - 1) * n**2 * ((mean_ranks - (k + 1) / 2) ** 2).sum() / spread)
    w = statistic / (n * (k - 1))
    p_value = float(stats.chi2.sf(statistic, k - 1))
    left = n * (k - 1) - statistic
    if left <= 1e-9 * n:  # every block ranks alike
        return Friedman(n, k, mean_ranks, statistic, p_value, np.inf, 0.0, w)
    f = (n - 1) * statistic / left
    return Friedman(
        n, k, mean_ranks, statistic, p_value, f, float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))), min(w, 1.0)
    )


def nemenyi(matrix: ArrayLike) -> Matrix:
    """Two-sided p-values of all pairs of treatments, corrected for their number (Nemenyi 1963; Demšar 2006,
    section 3.2.2): mean ranks against the studentized range with infinite degrees of freedom.

    Returns:
        treatments × treatments, symmetric, 1 on the diagonal.
    """
    values = _checked(matrix)
    n, k = values.shape
    mean_ranks = _ranks(values).mean(axis=0)
    error = np.sqrt(k * (k + 1) / (12 * n))
    first, second = np.triu_indices(k, 1)
    distance = np.abs(mean_ranks[first] - mean_ranks[second]) / error
    # Equal distances are common: the integral is worked out once for each.
    different, back = np.unique(distance.round(12), return_inverse=True)
    return _symmetric(k, stats.studentized_range.sf(different, k, np.inf)[back])


def critical_difference(treatments: int, blocks: int, *, level: float = 0.05) -> float:
    """How far mean ranks must be apart for Nemenyi's test to separate two treatments (Demšar 2006, section 3.2.2:
    q_α √(k(k+1)/6N), where q_α is the studentized range's over √2)."""
    q = stats.studentized_range.isf(level, treatments, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(treatments * (treatments + 1) / (6 * blocks)))


def conover(matrix: ArrayLike) -> Matrix:
    """Two-sided p-values of all pairs of treatments, not corrected for their number (Conover 1999, section 5.8,
    equation 5): rank sums by Student's t; to be read after a Friedman test that found something.

    Returns:
        treatments × treatments, symmetric, 1 on the diagonal.
    """
    values = _checked(matrix)
    n, k = values.shape
    ranks = _ranks(values)
    sums = ranks.sum(axis=0)
    error = 2 * (n * (ranks**2).sum() - (sums**2).sum()) / ((n - 1) * (k - 1))
    first, second = np.triu_indices(k, 1)
    distance = np.abs(sums[first] - sums[second])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = distance / np.sqrt(max(error, 0.0))
    # Without any error every difference is certain, and every equality too.
    p = np.where(distance == 0, 1.0, 2 * stats.t.sf(np.nan_to_num(t, posinf=np.inf), (n - 1) * (k - 1)))
    return _symmetric(k, p)


@dataclass(frozen=True)
class RankPicture:
    """What a critical-difference picture shows (Demšar 2006, figure 1).

    Attributes:
        names: treatments by mean rank, rank 1 (the highest values) first.
        mean_ranks: theirs.
        critical_difference: Nemenyi's, at ``level``.
        cliques: maximal groups of at least two names whose mean ranks lie within the critical difference.
        level: of the test.
        blocks: ranked.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]
    level: float
    blocks: int


def rank_picture(matrix: ArrayLike, names: Sequence[str], *, level: float = 0.05) -> RankPicture:
    """Mean ranks, and who cannot be told apart.

    Args:
        matrix: blocks × treatments, complete.
        names: of the treatments.
        level: of Nemenyi's test.
    """
    values = _checked(matrix)
    n, k = values.shape
    mean_ranks = _ranks(values).mean(axis=0)
    distance = critical_difference(k, n, level=level)
    order = sorted(range(k), key=lambda column: (mean_ranks[column], names[column]))
    placed = mean_ranks[order]
    cliques: list[tuple[str, ...]] = []
    reach = 0
    for start in range(k):
        end = int(np.searchsorted(placed, placed[start] + distance, side="left"))
        if end > reach and end - start > 1:
            cliques.append(tuple(names[column] for column in order[start:end]))
            reach = end
    ordered = tuple(names[column] for column in order)
    return RankPicture(ordered, tuple(placed.tolist()), distance, tuple(cliques), level, n)


@dataclass(frozen=True)
class Page:
    """Whether values rise along a predicted order.

    Attributes:
        blocks: number of rows.
        treatments: number of columns.
        statistic: Page's L.
        p_rising: one-sided, for rising along the order.
        p_falling: one-sided, for falling.
        rho: mean over blocks of Spearman's ρ between values and order; NaN where no block has one.
        rhos: per block; NaN where a block's values, or the order, are one tie.
        exact: whether p-values are exact instead of by the normal approximation.
    """

    blocks: int
    treatments: int
    statistic: float
    p_rising: float
    p_falling: float
    rho: float
    rhos: NDArray[np.float64]
    exact: bool

    @property
    def p_value(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_rising, self.p_falling))


def page(matrix: ArrayLike, order: ArrayLike) -> Page:
    """Page's trend test (1963), with ties and with an order that may differ between blocks.

    Under the hypothesis that a block's values stand in any order alike, its Σ predicted rank × rank has variance
    SS(predicted) SS(ranks) / (k − 1), whichever ranks are tied; L sums over blocks and is nearly normal. Without
    ties and for few blocks the exact distribution is scipy's.

    Args:
        matrix: blocks × treatments, complete.
        order: what values are expected to rise with: per treatment, or blocks × treatments.

    Raises:
        ValueError: a cell is NaN, or there are too few blocks or treatments.
    """
    values = _checked(matrix, fewest=1)
    n, k = values.shape
    predicted = stats.rankdata(np.broadcast_to(np.asarray(order, dtype=np.float64), (n, k)), axis=1)
    ranks = stats.rankdata(values, axis=1)
    centred_p, centred_r = predicted - (k + 1) / 2, ranks - (k + 1) / 2
    products = (centred_p * centred_r).sum(axis=1)
    squares = (centred_p**2).sum(axis=1) * (centred_r**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rhos = np.where(squares > 0, products / np.sqrt(squares), np.nan)
    total, variance = products.sum(), squares.sum() / (k - 1)
    statistic = float((predicted * ranks).sum())
    rho = float(np.nanmean(rhos)) if (squares > 0).any() else np.nan
    full = k * (k**2 - 1) / 12  # sum of squares of untied ranks
    untied = np.allclose(squares, full**2)
    exact = bool(untied and (k == 2 or (2 <= n <= 12 and k <= 7)))
    if exact and k == 2:  # a fair coin for every block
        up = int((products > 0).sum())
        rising, falling = stats.binom.sf(up - 1, n, 0.5), stats.binom.cdf(up, n, 0.5)
    elif exact:
        placed = np.take_along_axis(ranks, np.argsort(predicted, axis=1), axis=1)
        rising = stats.page_trend_test(placed, ranked=True, method="exact").pvalue
        falling = stats.page_trend_test(placed[:, ::-1], ranked=True, method="exact").pvalue
    elif variance == 0:
        rising = falling = 1.0
    else:
        rising, falling = stats.norm.sf([total, -total], scale=np.sqrt(variance))
    return Page(n, k, statistic, float(rising), float(falling), rho, rhos, exact)


@dataclass(frozen=True)
class SignedRank:
    """Whether paired differences lie around zero.

    Attributes:
        pairs: how many there are.
        zeros: those without a difference; they are left out of the ranking (Wilcoxon's own way).
        statistic: W+, the sum of ranks of the positive differences.
        p_greater: one-sided, for differences above zero.
        p_less: one-sided, for differences below zero.
        p_value: two-sided.
        rank_biserial: effect size: (W+ − W−) / (W+ + W−), −1 to 1 (Kerby 2014); 0 without differences.
    """

    pairs: int
    zeros: int
    statistic: float
    p_greater: float
    p_less: float
    p_value: float
    rank_biserial: float


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Wilcoxon's signed-rank test (1945) with the matched-pairs rank-biserial correlation.

    Exact for up to 50 differences, ties included, else by the normal approximation corrected for ties.

    Args:
        differences: finite, no NaN.

    Raises:
        ValueError: a difference is NaN or infinite.
    """
    d = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite: leave pairs with a missing value out, and say how many")
    # Differences of shares carry rounding errors, which would break ties by chance.
    d = d.round(12)
    different = d[d != 0]
    zeros = len(d) - len(different)
    if not len(different):
        return SignedRank(len(d), zeros, 0.0, 1.0, 1.0, 1.0, 0.0)
    ranks = stats.rankdata(np.abs(different))
    plus, total = float(ranks[different > 0].sum()), float(ranks.sum())
    if len(different) > 50:
        sides: tuple[Literal["greater", "less", "two-sided"], ...] = ("greater", "less", "two-sided")
        greater, less, both = (
            float(stats.wilcoxon(different, alternative=side, method="approx").pvalue) for side in sides
        )
    else:
        greater, less = _subset_sums(ranks, plus)
        both = min(1.0, 2 * min(greater, less))
    return SignedRank(len(d), zeros, plus, greater, less, both, (2 * plus - total) / total)


def _subset_sums(ranks: NDArray[np.float64], plus: float) -> tuple[float, float]:
    """Chances that the ranks of a random subset add up to at least, and to at most, ``plus``: every sign is a fair
    coin. Shared ranks are halves, so twice a rank is a whole number."""
    doubled = np.rint(2 * ranks).astype(np.int64)
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    at = int(np.rint(2 * plus))
    return float(chance[at:].sum()), float(chance[: at + 1].sum())


@dataclass(frozen=True)
class Signs:
    """Whether paired values differ in one direction.

    Attributes:
        above: pairs whose first value is the higher.
        below: pairs whose first value is the lower.
        ties: pairs of equals, which do not count.
        p_value: two-sided.
    """

    above: int
    below: int
    ties: int
    p_value: float


def sign_test(signs: ArrayLike) -> Signs:
    """The exact sign test (Hollander and Wolfe 1999, section 3.4), for values of which only the order is known.

    Args:
        signs: per pair 1, 0 or −1.
    """
    s = np.asarray(signs)
    above, below = int((s > 0).sum()), int((s < 0).sum())
    p = stats.binomtest(above, above + below).pvalue if above + below else 1.0
    return Signs(above, below, len(s) - above - below, float(p))


def _checked(matrix: ArrayLike, fewest: int = 2) -> Matrix:
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < fewest or values.shape[1] < 2:
        raise ValueError(f"needs at least {fewest} blocks and 2 treatments, got shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a cell is missing: leave its block out with complete_blocks, and say so")
    # Means of shares carry rounding errors, which would break ties by chance.
    return values.round(12)


def _ranks(values: Matrix) -> Matrix:
    """Within blocks; 1 is the highest."""
    return np.asarray(stats.rankdata(-values, axis=1), dtype=np.float64)


def _symmetric(k: int, above: NDArray[np.float64]) -> Matrix:
    matrix = np.ones((k, k))
    rows, columns = np.triu_indices(k, 1)
    matrix[rows, columns] = matrix[columns, rows] = np.clip(above, 0, 1)
    return matrix
