"""What was found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from mergerisk.recommending.recipe import Recipe
    from mergerisk.recommending.scoring import Score, Tried
    from mergerisk.statistics.priced import Bounded


@dataclass(frozen=True)
class Measured:
    """A recipe, or a merge of the study, as it was measured on attacked images.

    Attributes:
        name: what results call it.
        recipe: None of what the study had already.
        accuracy: clean, mean over tasks, on whole test splits.
        epsilon50: under its worst attacker who holds no merge: 0 below the smallest budget, infinite where none
            fools half.
        attacker: the surrogate of that one.
        attack: the strongest from there.
        unaware: ε50 under the worst attacker who knows of no defense; None of what nothing defends.
        searched: where the search saw it, on the images that it was chosen by; None of what was not chosen.
        checks: names of the checks that keep one from saying that it defends; None of what nothing defends.
        best: whether nothing that was measured beats it on both axes.
        file: of the recipe; empty of what the study had already.
    """

    name: str
    recipe: Recipe | None
    accuracy: Bounded
    epsilon50: Bounded
    attacker: str
    attack: str
    unaware: Bounded | None
    searched: Score | None
    checks: tuple[str, ...] | None
    best: bool
    file: str


@dataclass(frozen=True)
class Beside:
    """A recipe beside a merge of the study, on the same images.

    Attributes:
        recipe: its name.
        other: the merge's.
        accuracy: clean accuracy of the recipe less that of the other.
        gain: its ε50 over the other's, each under its own worst attacker; at the ends of the measured budgets
            where one lies beyond.
        bound: whether the gain is known or only bounded.
    """

    recipe: str
    other: str
    accuracy: Bounded
    gain: Bounded
    bound: Literal["exact", "at_least", "at_most", "unknown"]

    @property
    def better(self) -> tuple[str, ...]:
        """Axes on which the recipe is better beyond chance."""
        safer = self.gain.low > 1 and self.bound in {"exact", "at_least"}
        return ("accuracy",) * bool(self.accuracy.low > 0) + ("epsilon50",) * bool(safer)

    @property
    def worse(self) -> tuple[str, ...]:
        """Axes on which it is worse beyond chance."""
        riskier = self.gain.high < 1 and self.bound in {"exact", "at_most"}
        return ("accuracy",) * bool(self.accuracy.high < 0) + ("epsilon50",) * bool(riskier)

    @property
    def beats(self) -> bool:
        """Whether it is better on one axis, and worse on none, beyond chance."""
        return bool(self.better) and not self.worse


@dataclass(frozen=True)
class Recommendation:
    """What was found.

    Attributes:
        folder: where everything is.
        study: its name.
        recommended: the name of the recipe that the search chose to recommend, before anything was measured.
        recipes: the best trades that were measured, the most accurate in the search first.
        references: the study's own merges.
        beside: every recipe beside every one of them.
        tried: everything that the search looked at, in order.
        attack: that recipes were chosen by.
        images: of every task that were attacked to choose by, at most.
        epsilons: the budgets.
        seconds: that searching took, and measuring.
        time: that was allowed, in seconds; None without a limit.
        notes: what one must know to read it, in sentences.
    """

    folder: Path
    study: str
    recommended: str
    recipes: tuple[Measured, ...]
    references: tuple[Measured, ...]
    beside: tuple[Beside, ...]
    tried: tuple[Tried, ...]
    attack: str
    images: int
    epsilons: tuple[float, ...]
    seconds: tuple[float, float]
    time: float | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Recommendation({str(self.folder)!r}: {self.best.recipe}, of {len(self.tried)} recipes tried)"

    @property
    def best(self) -> Measured:
        """The recommended recipe."""
        return next(one for one in self.recipes if one.name == self.recommended)

    def beaten(self, recipe: str) -> tuple[str, ...]:
        """The study's merges that a recipe is better than on one axis, and worse on none."""
        return tuple(one.other for one in self.beside if one.recipe == recipe and one.beats)
