"""How the success of an attack grows with its steps: under-iterated attacks are compared unfairly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.cells import average_over_seeds, black_box_methods

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes


@dataclass(frozen=True)
class StepRow:
    """One attack after one number of steps.

    Attributes:
        attack: its name.
        steps: taken.
        surrogate_asr: mean over tasks and merging methods, on the surrogate itself.
        asr: likewise, on the merging methods.
    """

    attack: str
    steps: int
    surrogate_asr: float
    asr: float


def step_rows(by_step: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float) -> tuple[StepRow, ...]:
    """Every iterate that was kept, at one budget and from one surrogate."""
    here = by_step[(by_step["surrogate"] == surrogate) & (by_step["epsilon"] == epsilon)]
    rows = []
    for attack, of_attack in here.groupby("attack", sort=False, observed=True):
        for steps in sorted(set(of_attack["steps"].tolist())):
            cells = black_box_methods(average_over_seeds(of_attack[of_attack["steps"] == steps]), axes)
            means = cells[["surrogate_asr", "asr"]].mean()
            rows.append(StepRow(str(attack), steps, float(means["surrogate_asr"]), float(means["asr"])))
    return tuple(rows)
