"""What became of images that were attacked on one model and shown to another: outcomes, rates, intervals, ε50."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.errors import UserError
from mergerisk.statistics.curves import epsilon50_of
from mergerisk.statistics.intervals import wilson_interval
from mergerisk.statistics.rate_tables import with_intervals
from mergerisk.text_tables import text_table
from mergerisk.transfer.rates import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from mergerisk.statistics.curves import Epsilon50


@dataclass(frozen=True)
class Rate:
    """A rate, or a ratio of two, with its 95 % interval.

    Attributes:
        value: NaN where nothing counts.
        low: lower end.
        high: upper end.
        images: that it is of.
    """

    value: float
    low: float
    high: float
    images: int

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.images}" if self.images else "– of 0"


@dataclass(frozen=True, eq=False, repr=False)
class Transfer:
    """What became of every image at every budget, and what follows.

    Attributes:
        outcomes: one row per image and budget, with the columns of a study's ``outcomes.parquet``
            (:mod:`mergerisk.transfer.rates`).
        rates: one row per budget, with the columns of a study's ``results.csv``
            (:func:`mergerisk.statistics.rate_table`).
        epsilon50: the budget that fools half of the images that both models get right, with its interval.
        clean_accuracy: of ``surrogate`` and ``target`` on these images.
        norm: of the budgets.
    """

    outcomes: pd.DataFrame
    rates: pd.DataFrame
    epsilon50: Epsilon50
    clean_accuracy: Mapping[str, Rate]
    norm: str

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The budgets, rising, in pixel units."""
        return tuple(self.rates["epsilon"])

    def asr(self, epsilon: float | None = None) -> Rate:
        """Of the images that surrogate and target get right when clean, the share the target gets wrong under
        attack; Wilson's interval.

        Args:
            epsilon: one of the budgets; may be left out if there is one.

        Raises:
            UserError: it was not measured.
        """
        return self._rate("asr", "images_both_correct", epsilon)

    def asr_all(self, epsilon: float | None = None) -> Rate:
        """Of all images, the share the target gets wrong under attack, clean errors included; see :meth:`asr`."""
        return self._rate("asr_all", "images", epsilon)

    def surrogate_asr(self, epsilon: float | None = None) -> Rate:
        """The same as :meth:`asr`, on the surrogate itself."""
        row = self._row(epsilon)
        images = int(row["images_both_correct"])
        return _share(float(row["surrogate_asr"]), images)

    def relative_asr(self, epsilon: float | None = None) -> Rate:
        """ASR on the target over ASR on the surrogate; Bonett and Price's interval of paired ratios."""
        return self._rate("relative_asr", "images_both_correct", epsilon)

    def _rate(self, name: str, images: str, epsilon: float | None) -> Rate:
        row = self._row(epsilon)
        value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
        return Rate(value, low, high, int(row[images]))

    def _row(self, epsilon: float | None) -> pd.Series[float]:
        if epsilon is None and len(self.rates) > 1:
            raise UserError(f"measured at {len(self.rates)} budgets, {self._budgets()}; say at which")
        near = np.isclose(
            self.rates["epsilon"], self.epsilons[0] if epsilon is None else epsilon, rtol=1e-9, atol=0
        )
        if not near.any():
            raise UserError(f"not measured at {self._budget(float(epsilon or 0))}; measured are {self._budgets()}")
        found: pd.Series[float] = self.rates.iloc[int(near.argmax())]
        return found

    def _budget(self, epsilon: float) -> str:
        return f"{255 * epsilon:.4g}/255" if self.norm == "linf" else f"{epsilon:.4g}"

    def _budgets(self) -> str:
        return ", ".join(map(self._budget, self.epsilons))

    def __repr__(self) -> str:
        accuracies = ", ".join(f"{name} {rate}" for name, rate in self.clean_accuracy.items())
        measures = {
            "ASR": self.asr,
            "the surrogate's": self.surrogate_asr,
            "relative ASR": self.relative_asr,
            "ASR of all images": self.asr_all,
        }
        rows = [["budget", *measures]]
        rows += [[self._budget(at), *(str(measure(at)) for measure in measures.values())] for at in self.epsilons]
        half = [f"ε50 {self._half()}"] if len(self.rates) > 1 else []
        about = f"Transfer of {self.rates['attack'][0]}, {self.norm}; clean accuracy: {accuracies}"
        return "\n".join([about, text_table(rows), *half])

    def _half(self) -> str:
        half, images = self.epsilon50, int(self.rates["images_both_correct"][0])
        if half.status == "no_images":
            return "– of 0"
        value = {"measured": half.value, "below_smallest": 0.0, "not_reached": np.inf}[half.status]
        return f"{self._bound(value)} [{self._bound(half.low)}, {self._bound(half.high)}] of {images}"

    def _bound(self, epsilon: float) -> str:
        """A budget, or beyond which of the measured ones it lies."""
        if epsilon == 0:
            return f"below {self._budget(self.epsilons[0])}"
        return f"above {self._budget(self.epsilons[-1])}" if np.isinf(epsilon) else self._budget(epsilon)


def judged(outcomes: pd.DataFrame, epsilons: Sequence[float], norm: str) -> Transfer:
    """What follows from outcomes of the same images at every budget, in one block per budget."""
    counted = count(outcomes)
    happened, images = counted.happened, len(outcomes) // len(epsilons)
    # Who counts is the same at every budget.
    wrong = happened.target_wrong.reshape(len(epsilons), images).T
    half = epsilon50_of([(wrong[happened.counts[:images]], epsilons)])[0]
    accuracy = {
        role: _share(float(right[:images].mean()), images)
        for role, right in (("surrogate", happened.surrogate_right), ("target", happened.target_right))
    }
    return Transfer(outcomes, with_intervals(counted.rates), half, accuracy, norm)


def _share(value: float, images: int) -> Rate:
    successes = 0 if np.isnan(value) else round(value * images)
    low, high = wilson_interval(successes, images)
    return Rate(value, float(low), float(high), images)
