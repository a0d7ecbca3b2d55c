"""Whether what is learnt of some targets predicts who fools another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.seeds import numpy_generator
from mergerisk.statistics.clusters import Interval
from mergerisk.statistics.explaining.rows import BLOCK, codes_of, complete, left_out
from mergerisk.statistics.facts import fact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Generalisation:
    """How well diagnostics predict a target they were not fitted on.

    Attributes:
        auc: chance that, of two images of a left-out target, one that fools it and one that does not, the first is
            given the larger chance; inside blocks, ½ for no better than a coin.
        interval: of it, over images in tasks.
        p: how often outcomes given to other images of their task are predicted as well, fitted on them anew.
        null: the 95th percentile of such predictions' areas.
        r2: of the left-out target's rates in each block: 1 − squared errors over those of the other targets' mean;
            below 0 where that mean predicts better.
        rows: predicted.
        missing: rows that lack a diagnostic.
    """

    auc: float
    interval: Interval
    p: float
    null: float
    r2: float
    rows: int
    missing: int


def leave_one_target_out(
    table: pd.DataFrame,
    diagnostics: Sequence[str],
    *,
    confidence: float = 0.95,
    permutations: int = 99,
    seed: int = 0,
) -> Generalisation:
    """Logistic regression (scikit-learn) of ``fooled`` on the diagnostics and on the rate of each block, fitted on
    all targets but one, predicts that one; for every target in turn.

    Args:
        table: a row per task, attack, epsilon, target and image; see the package.
        diagnostics: columns of it; standardised inside blocks, over the targets that are fitted on.
        confidence: of the interval, by a delete-a-group jackknife.
        permutations: of the test, each of which fits all the models again; 0 for no test.
        seed: of groups and permutations.

    Raises:
        UserError: fewer than two targets, or all are fooled alike.
    """
    rows = complete(table, [*diagnostics, "fooled"])
    targets = rows["target"].unique()
    if len(targets) < 2:
        raise UserError("to predict a target from others takes two targets at least")
    y = rows["fooled"].to_numpy(dtype=np.float64)
    fits = _Fits(rows, rows[list(diagnostics)].to_numpy(dtype=np.float64))
    chance, usual = fits.predicted(y)
    known = np.isfinite(chance)
    groups, _ = codes_of(rows, (*BLOCK, "target"))
    value = _Areas(chance[known], groups[known]).of(y[known])
    if not np.isfinite(value):
        raise UserError("no target has both images that fool it and images that do not in one block")
    used = rows[known].reset_index(drop=True)
    left = left_out(used, seed)
    without = np.full((len(left.counts), int(left.counts.max())), np.nan)
    for task, number in enumerate(left.counts):
        for group in range(number):
            keep = ~((left.tasks == task) & (left.groups == group))
            without[task, group] = _Areas(chance[known][keep], groups[known][keep]).of(y[known][keep])
    reach = float(stats.t.isf((1 - confidence) / 2, max(1, left.freedom))) * left.error(without)
    interval = Interval(max(0.0, value - reach), min(1.0, value + reach), confidence, "images", fact("jackknife"))
    random = numpy_generator(seed, "explaining", "permutations")
    others = _Others(rows)
    by_chance = []
    for _ in range(permutations):
        outcome = others.given(y, random)
        # Fitted anew: what is predicted for one target depends on what the others happen to say.
        own = fits.predicted(outcome)[0]
        by_chance.append(_Areas(own[known], groups[known]).of(outcome[known]))
    cells = np.bincount(groups[known])
    there = cells > 0
    rates, predicted, mean = (
        np.bincount(groups[known], values[known])[there] / cells[there] for values in (y, chance, usual)
    )
    spread = float(((rates - mean) ** 2).sum())
    r2 = 1 - float(((rates - predicted) ** 2).sum()) / spread if spread else np.nan
    beyond = 1 + sum(area >= value - 1e-12 for area in by_chance)
    p = beyond / (permutations + 1) if permutations else np.nan
    null = float(np.quantile(by_chance, 0.95, method="inverted_cdf")) if permutations else np.nan
    return Generalisation(value, interval, p, null, r2, int(known.sum()), len(table) - len(rows))


class _Fits:
    """Models of all targets but one, for each."""

    def __init__(self, rows: pd.DataFrame, x: NDArray[np.float64]) -> None:
        self.target, targets = pd.factorize(rows["target"])
        self.blocks, self.count = codes_of(rows, BLOCK)
        self.x, self.targets = x, len(targets)

    def predicted(self, y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each row the chance to be fooled, from the other targets, and these targets' rate in its block; NaN
        where no other target is in it."""
        chance, usual = np.full((2, len(y)), np.nan)
        for target in range(self.targets):
            out = self.target == target
            chance[out], usual[out] = self._of(y, out)
        return chance, usual

    def _of(
        self, y: NDArray[np.float64], out: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from sklearn import config_context
        from sklearn.linear_model import LogisticRegression

        others, own = self.blocks[~out], self.blocks[out]
        held = np.bincount(others, minlength=self.count)
        some = np.maximum(1, held)
        rate = (np.bincount(others, y[~out], minlength=self.count) + 0.5) / (held + 1)
        sums = [np.bincount(others, column[~out], minlength=self.count) for column in self.x.T]
        inside = self.x - np.column_stack([total / some for total in sums])[self.blocks]
        spread = np.sqrt((inside[~out] ** 2).mean(axis=0))
        odds = np.log(rate / (1 - rate))
        features = np.column_stack([inside / np.where(spread > 0, spread, 1.0), odds[self.blocks]])
        chance = np.full(len(own), np.nan)
        there = held[own] > 0
        if len(np.unique(y[~out])) == 2 and there.any():
            with config_context(assume_finite=True, skip_parameter_validation=True):  # half of the time otherwise
                model = LogisticRegression(C=1e3, solver="newton-cholesky").fit(features[~out], y[~out])
                chance[there] = model.predict_proba(features[out][there])[:, 1]
        return chance, np.where(there, rate[own], np.nan)


class _Areas:
    """The mean area under the curve of chances inside groups, each weighing by its pairs."""

    def __init__(self, chance: NDArray[np.float64], groups: NDArray[np.intp]) -> None:
        self.groups, self.count = groups, int(groups.max(initial=-1)) + 1
        order = np.lexsort((chance, groups))
        own, values = groups[order], chance[order]
        place = np.arange(len(order)) - np.searchsorted(own, np.arange(self.count))[own]
        # Ties share the mean of their places.
        new = (np.diff(own, prepend=-1) != 0) | (np.diff(values, prepend=np.nan) != 0)
        tie = np.cumsum(new) - 1
        mean = np.bincount(tie, place) / np.bincount(tie) if len(tie) else np.zeros(0)
        self.ranks = np.empty(len(order))
        self.ranks[order] = mean[tie] + 1

    def of(self, outcome: NDArray[np.float64]) -> float:
        hit = outcome > 0
        ones = np.bincount(self.groups[hit], minlength=self.count).astype(np.float64)
        ranks = np.bincount(self.groups[hit], self.ranks[hit], minlength=self.count)
        above = float((ranks - ones * (ones + 1) / 2).sum())
        pairs = float((ones * (np.bincount(self.groups, minlength=self.count) - ones)).sum())
        return above / pairs if pairs else np.nan


class _Others:
    """Gives outcomes of images to others of their task, attack, budget and target, the same way wherever the same
    images are."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.images, self.count = codes_of(rows, ["task", "image"])
        self.groups, _ = codes_of(rows, (*BLOCK, "target"))
        self.order = np.lexsort((self.images, self.groups))

    def given(self, outcome: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        keys = random.random(self.count)[self.images]
        found = np.empty_like(outcome)
        found[self.order] = outcome[np.lexsort((keys, self.groups))]
        return found
