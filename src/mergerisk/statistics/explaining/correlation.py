"""Rank correlations of diagnostics with outcomes, inside blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.seeds import numpy_generator
from mergerisk.statistics.correction import holm
from mergerisk.statistics.curves import crossings
from mergerisk.statistics.explaining.rows import BLOCK, codes_of, complete, left_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mergerisk.statistics.explaining.rows import Left

EPSILON50 = "epsilon50"
"""The outcome that is the budget which fools half of a target's images."""

Between = Literal["images", "targets"]
"""``images``: of the images of one target, are those with larger values fooled more? ``targets``: of targets, are
those whose images have larger values on average fooled more?"""


def rank_correlations(
    table: pd.DataFrame,
    diagnostics: Sequence[str],
    *,
    outcome: str = "fooled",
    between: Between = "images",
    confidence: float = 0.95,
    permutations: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Spearman's correlation of each diagnostic with the outcome, inside blocks of task, attack and budget, never
    across; the mean over blocks, weighted by what they hold.

    The two levels are kept apart: rows of one target share what that target is like, so that as many rows as there
    are images say no more about *targets* than there are targets.

    Args:
        table: a row per task, attack, epsilon, target and image; see the package.
        diagnostics: columns of it.
        outcome: another one: ``fooled``; or, between targets, ``epsilon50``: of every target the budget that fools
            half of its images, from ``fooled`` at all budgets of a task and attack, which are one block then.
        between: ``images``, in blocks of one target each; or ``targets``, on means over images.
        confidence: of the intervals, over images in tasks, by a delete-a-group jackknife of Fisher's z.
        permutations: of what is tested between targets.
        seed: of groups and permutations.

    Returns:
        A row per diagnostic: ``correlation, low, high, p, p_holm, rows, missing, blocks``. p is two-sided,
        adjusted by Holm over the diagnostics: between images by Student's t of z; between targets by giving each
        target's values to another one, the same in all blocks. All NaN where no block has two values of both.
    """
    found = []
    for name in diagnostics:
        rows = complete(table, [name, "fooled" if outcome == EPSILON50 else outcome])
        correlation = _Correlation(rows, name, outcome, between)
        value, low, high, p = correlation.test(confidence, permutations, seed)
        found.append(
            {
                "diagnostic": name,
                "correlation": value,
                "low": low,
                "high": high,
                "p": p,
                "rows": len(rows),
                "missing": len(table) - len(rows),
                "blocks": correlation.used,
            }
        )
    result = pd.DataFrame(found)
    result.insert(5, "p_holm", holm(result["p"]))
    return result


@dataclass(frozen=True, eq=False)
class TwoCorrelations:
    """Rank correlations of two diagnostics with being fooled, on the same rows; task by task.

    Attributes:
        tasks: those that have a block in which both vary.
        first: of the one diagnostic, each task's mean over its blocks.
        second: of the other.
        error: standard error of the mean of the differences, over images in these tasks.
        freedom: its degrees of freedom.
    """

    tasks: tuple[str, ...]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    error: float
    freedom: int

    @property
    def differences(self) -> NDArray[np.float64]:
        """Per task by how much the first is larger, each in the direction that it has over all tasks."""
        return _difference(self.first, self.second, _signs(self.first, self.second))


def two_correlations(
    table: pd.DataFrame, first: str, second: str, *, between: Between = "images", seed: int = 0
) -> TwoCorrelations:
    """Of two diagnostics the correlations of :func:`rank_correlations` with being fooled, of rows that have both.

    Args:
        table: as there.
        first: a column of it.
        second: another.
        between: as there.
        seed: of the groups of images that the error is found with.
    """
    rows = complete(table, [first, second, "fooled"])
    left = left_out(rows, seed)
    found = [_Correlation(rows, name, "fooled", between) for name in (first, second)]
    sizes = np.where((found[0].sizes > 0) & (found[1].sizes > 0), found[0].sizes, 0.0)
    blocks = np.array([left.tasks[block[0]] for block in found[0].blocks], dtype=np.intp)
    total = np.bincount(blocks, sizes, minlength=len(left.counts))
    kept = np.flatnonzero(total > 0)
    wholes, without = [], []
    for one in found:
        whole = np.bincount(blocks, sizes * one.whole, minlength=len(total))[kept] / total[kept]
        wholes.append(whole)
        without.append(whole[:, None] + one.changes(left, sizes)[kept] / total[kept, None])
    signs = _signs(wholes[0], wholes[1])
    inside = replace(left, counts=left.counts[kept])
    error = inside.error(_difference(without[0], without[1], signs) / max(1, len(kept)))
    names = pd.unique(rows["task"])
    return TwoCorrelations(tuple(str(names[place]) for place in kept), wholes[0], wholes[1], error, inside.freedom)


def _signs(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    return (-1.0 if first.sum() < 0 else 1.0), (-1.0 if second.sum() < 0 else 1.0)


def _difference(
    first: NDArray[np.float64], second: NDArray[np.float64], signs: tuple[float, float]
) -> NDArray[np.float64]:
    return np.asarray(signs[0] * first - signs[1] * second)


class _Correlation:
    """One diagnostic and the outcome, block by block."""

    def __init__(self, rows: pd.DataFrame, name: str, outcome: str, between: Between) -> None:
        self.rows, self.between = rows, between
        self.half = outcome == EPSILON50
        self.x = rows[name].to_numpy(dtype=np.float64)
        self.y = rows["fooled" if self.half else outcome].to_numpy(dtype=np.float64)
        by = (*BLOCK, "target") if between == "images" else BLOCK[:2] if self.half else BLOCK
        codes, count = codes_of(rows, by)
        order = np.argsort(codes, kind="stable")
        places = np.searchsorted(codes[order], np.arange(1, count))
        self.blocks = np.split(order, places) if count else []
        self.target, self.targets = pd.factorize(rows["target"])
        self.epsilon, self.epsilons = pd.factorize(rows["epsilon"], sort=True)
        whole = np.array([self.of_block(block, np.ones((1, len(block))))[0] for block in self.blocks])
        self.sizes = np.array([self.size(block) for block in self.blocks], dtype=np.float64)
        self.sizes[np.isnan(whole)] = 0.0
        self.whole = np.where(self.sizes > 0, whole, 0.0)
        self.used = int((self.sizes > 0).sum())

    def size(self, block: NDArray[np.intp]) -> int:
        return len(np.unique(self.target[block])) if self.between == "targets" else len(block)

    def of_block(self, block: NDArray[np.intp], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """One correlation per row of weights (… × the block's rows)."""
        if self.between == "images":
            return weighted_spearman(self.x[block], self.y[block], weights)
        _, x, y = self.of_targets(block, weights)
        return _spearman(x, y)

    def of_targets(
        self, block: NDArray[np.intp], weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """A block's targets, and of each the mean of the diagnostic and the outcome: … × targets."""
        own = self.target[block]
        held = np.unique(own)
        member = (own[:, None] == held).astype(np.float64)
        x = _means(weights, self.x[block], member)
        if not self.half:
            return held, x, _means(weights, self.y[block], member)
        budgets = np.unique(self.epsilon[block])
        cell = (member[:, :, None] * (self.epsilon[block][:, None] == budgets)[:, None, :]).reshape(len(block), -1)
        rates = _means(weights, self.y[block], cell).reshape(-1, len(budgets))
        half = crossings(rates, np.asarray(self.epsilons, dtype=np.float64)[budgets])
        half[np.isnan(rates).any(axis=1)] = np.nan
        return held, x, half.reshape(len(weights), -1)

    def mean(self, values: NDArray[np.float64]) -> float:
        """Over blocks."""
        return float((self.sizes * values).sum() / self.sizes.sum())

    def test(self, confidence: float, permutations: int, seed: int) -> tuple[float, float, float, float]:
        """Correlation, interval and p-value."""
        if not self.used:
            return np.nan, np.nan, np.nan, np.nan
        value = self.mean(self.whole)
        left = left_out(self.rows, seed)
        error = left.error(np.arctanh(np.clip(self.without(left), -1 + 1e-12, 1 - 1e-12)))
        z = float(np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12)))
        reach = float(stats.t.isf((1 - confidence) / 2, max(1, left.freedom))) * error
        if self.between == "images":
            p = float(2 * stats.t.sf(abs(z) / error, left.freedom)) if error else np.nan
        else:
            p = self.permuted(abs(value), permutations, seed)
        return value, float(np.tanh(z - reach)), float(np.tanh(z + reach)), p

    def without(self, left: Left) -> NDArray[np.float64]:
        """The correlation without each group of images: tasks × groups."""
        found = np.full((len(left.counts), int(left.counts.max())), np.nan)
        change = self.changes(left, self.sizes)
        for task, count in enumerate(left.counts):
            found[task, :count] = self.mean(self.whole) + change[task, :count] / self.sizes.sum()
        return found

    def changes(self, left: Left, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """What leaving out each group changes in the sum of its task's blocks, weighted: tasks × groups."""
        change = np.zeros((len(left.counts), int(left.counts.max(initial=0))))
        for place, block in enumerate(self.blocks):
            if not sizes[place]:
                continue
            task = left.tasks[block[0]]
            groups = np.arange(left.counts[task])
            weights = (left.groups[block] != groups[:, None]).astype(np.float64)
            values = self.of_block(block, weights)
            values = np.where(np.isnan(values), self.whole[place], values)
            change[task, groups] += sizes[place] * (values - self.whole[place])
        return change

    def permuted(self, size: float, permutations: int, seed: int) -> float:
        """How often targets that are given others' values correlate as strongly."""
        random = numpy_generator(seed, "explaining", "permutations")
        moved = np.array([random.permutation(len(self.targets)) for _ in range(permutations)])
        total = np.zeros(permutations)
        for block, weight in zip(self.blocks, self.sizes, strict=True):
            if not weight or not permutations:
                continue
            held, x, y = (part.squeeze() for part in self.of_targets(block, np.ones((1, len(block)))))
            there = ~(np.isnan(x) | np.isnan(y))
            # A target may be given one's values that this block lacks: only the order among its own counts then.
            order = np.argsort(np.argsort(moved[:, held[there]], axis=1), axis=1)
            a, b = (_centred_ranks(values[there]) for values in (x, y))
            total += weight * (a[order] @ b) / np.sqrt((a @ a) * (b @ b))
        beyond = 1 + int((np.abs(total / self.sizes.sum()) >= size - 1e-12).sum())
        return beyond / (permutations + 1)


def _means(
    weights: NDArray[np.float64], values: NDArray[np.float64], member: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted means of groups (… × groups), NaN of empty ones; equal where only rounding tells them apart."""
    with np.errstate(invalid="ignore"):
        found = (weights * values) @ member / (weights @ member)
    known = np.isfinite(found) & (found != 0)
    digits = 10.0 ** (12 - np.ceil(np.log10(np.abs(np.where(known, found, 1.0)))))
    return np.asarray(np.where(known, np.round(np.where(known, found, 0.0) * digits) / digits, found))


def _centred_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Along the last axis."""
    ranks = stats.rankdata(values, axis=-1)
    return np.asarray(ranks - ranks.mean(axis=-1, keepdims=True))


def weighted_spearman(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spearman's correlation of x and y, with mean ranks for ties, as often as there are rows of weights (… × n),
    which say how often each pair counts; NaN where one does not vary."""
    total = weights.sum(axis=1, keepdims=True)
    ranks = [_midranks(values, weights) for values in (x, y)]
    a, b = (rank - (weights * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    along = (weights * a * b).sum(axis=1)
    sizes = [(weights * part * part).sum(axis=1) for part in (a, b)]
    least = 1e-9 * total[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = along / np.sqrt(sizes[0] * sizes[1])
    found[(sizes[0] <= least) | (sizes[1] <= least)] = np.nan
    return np.asarray(np.clip(found, -1.0, 1.0))


def _midranks(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean rank of each value among those that count, ties sharing theirs, less a half."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    held = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = held.cumsum(axis=1) - held / 2
    return np.asarray(ranks[:, group])


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, of the pairs that are there; NaN of fewer than three, or where one does not vary."""
    gaps = np.isnan(x) | np.isnan(y)
    if gaps.any():
        parts = [
            _spearman(a[None, ~gap], b[None, ~gap]) if gap.any() else _spearman(a[None], b[None])
            for a, b, gap in zip(x, y, gaps, strict=True)
        ]
        return np.concatenate(parts)
    if x.shape[1] < 3:
        return np.full(len(x), np.nan)
    a, b = _centred_ranks(x), _centred_ranks(y)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(size > 0, np.clip((a * b).sum(axis=1) / size, -1, 1), np.nan))
