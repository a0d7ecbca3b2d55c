"""How the success of an attack grows with its steps: under-iterated attacks are compared unfairly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.cells import average_over_seeds, black_box_methods
from mergerisk.report.risk import Mean, mean_over_tasks, mean_text

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes


@dataclass(frozen=True)
class StepCell:
    """One attack after some number of steps.

    Attributes:
        target: mean ASR on the merging methods, over tasks and methods.
        surrogate: on the surrogate itself.
        least: images counted, over all tasks, for the method of fewest and
        most: of most; of several seeds together.
    """

    target: Mean
    surrogate: Mean
    least: int
    most: int

    @property
    def fooled(self) -> str:
        """ASR on the methods with its interval."""
        return mean_text(self.target)

    @property
    def own(self) -> str:
        """ASR on the surrogate with its interval."""
        return mean_text(self.surrogate)

    @property
    def share(self) -> float:
        """ASR on the methods, in [0,1]."""
        return self.target.value

    @property
    def images(self) -> str:
        """How many images count."""
        return f"{self.least}–{self.most}" if self.least != self.most else str(self.least)


@dataclass(frozen=True)
class StepTable:
    """ASR by attack and number of steps.

    Attributes:
        steps: the columns, rising.
        rows: attack → steps → what was found.
    """

    steps: tuple[int, ...]
    rows: dict[str, dict[int, StepCell]]


def step_table(by_step: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float) -> StepTable:
    """Every iterate that was kept, at one budget and from one surrogate."""
    here = by_step[(by_step["surrogate"] == surrogate) & (by_step["epsilon"] == epsilon)]
    kept = sorted(set(here["steps"].tolist()))
    rows: dict[str, dict[int, StepCell]] = {}
    for steps in kept:
        cells = black_box_methods(average_over_seeds(here[here["steps"] == steps]), axes)
        for attack, of_attack in cells.groupby("attack", sort=False, observed=True):
            counted = of_attack.groupby("target", observed=True)["images_both_correct"].sum()
            rows.setdefault(str(attack), {})[steps] = StepCell(
                mean_over_tasks(of_attack, "asr", "asr_low", "asr_high"),
                mean_over_tasks(of_attack, "surrogate_asr", "surrogate_asr_low", "surrogate_asr_high"),
                int(counted.min()),
                int(counted.max()),
            )
    return StepTable(tuple(kept), rows)
