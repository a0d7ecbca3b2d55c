"""What is said of a defense's price: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["unaware", "aware", "adaptive", "unseen", "own_merge", "undefended", "white_box"]
"""What an attacker knows: nothing of the defense; the defense; what stands before the model; nothing of a defense
that knows nothing of them; how to merge what is public; the model, but not the defense; everything."""

PUBLIC: tuple[Kind, ...] = ("unaware", "aware", "adaptive", "unseen")
"""Those who hold no merge: of these the worst is told, as where no defense is."""


@dataclass(frozen=True)
class Holder:
    """An attacker.

    Attributes:
        surrogate: what it crafts on.
        kind: what it knows.
        target: the one defended target that it attacks; None of one who attacks all.
        undefended: the surrogate of the same attacker where there is no defense; None if the study has none.
    """

    surrogate: str
    kind: Kind
    target: str | None
    undefended: str | None


@dataclass(frozen=True)
class Bounded:
    """A figure with its 95 % interval; NaN where there is none.

    Attributes:
        value: of an ε50 0 below the smallest budget, infinite where none fools half.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


UNKNOWN = Bounded(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Price:
    """One attacker on a defended target, beside the undefended one under the same attacker, or under the worst one
    who knows of no defense.

    Attributes:
        surrogate: what the attack was made on.
        kind: what the attacker knows.
        attack: the strongest, by its mean ASR over budgets.
        beside: the undefended target's surrogate; empty where nothing is compared.
        beside_attack: its attack; likewise.
        images: that count, of all tasks and seeds.
        epsilon50: of the defended target.
        undefended_epsilon50: of the other one.
        gain: how many times the other's ε50; at the ends of the measured budgets where an ε50 lies beyond.
        bound: whether the gain is known or only bounded: ``exact``, ``at_least``, ``at_most`` or ``unknown``.
        asr: at the price list's budget.
        undefended_asr: likewise.
        relative_asr: ASR on the target over ASR on the surrogate, both means over tasks, there.
        undefended_relative_asr: likewise.
        relative_difference: the first less the second.
    """

    surrogate: str
    kind: Kind
    attack: str
    beside: str
    beside_attack: str
    images: int
    epsilon50: Bounded
    undefended_epsilon50: Bounded
    gain: Bounded
    bound: Literal["exact", "at_least", "at_most", "unknown"]
    asr: Bounded
    undefended_asr: Bounded
    relative_asr: Bounded
    undefended_relative_asr: Bounded
    relative_difference: Bounded


@dataclass(frozen=True)
class Accuracies:
    """Clean accuracy, mean over tasks, on whole test splits.

    Attributes:
        defended: of the defended target.
        undefended: of the other.
        lost: the second less the first, on the same images.
    """

    defended: Bounded
    undefended: Bounded
    lost: Bounded


@dataclass(frozen=True)
class PricedTarget:
    """One defended target.

    Attributes:
        target: its label.
        undefended: the same without any defense.
        accuracy: clean.
        attackers: every one, in the study's order.
        unaware: the worst of those who know of no defense, beside the undefended target under its own worst one;
            None if there is none.
        worst: the worst of all who hold no merge, likewise.
    """

    target: str
    undefended: str
    accuracy: Accuracies
    attackers: tuple[Price, ...]
    unaware: Price | None
    worst: Price | None

    @property
    def points_per_unit(self) -> float:
        """Percentage points of clean accuracy lost for each 1/255 of ε50 gained under the worst attacker; NaN
        where no ε50 was gained, or it is not known how much."""
        if self.worst is None or self.worst.bound != "exact":
            return float("nan")
        gained = 255 * (self.worst.epsilon50.value - self.worst.undefended_epsilon50.value)
        return 100 * self.accuracy.lost.value / gained if gained > 0 else float("nan")
