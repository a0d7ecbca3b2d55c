"""How the success of an attack grows with its steps: under-iterated attacks are compared unfairly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.cells import average_over_seeds, black_box_methods

if TYPE_CHECKING:
    import pandas as pd

    from mergerisk.report.cells import Axes


@dataclass(frozen=True)
class StepTable:
    """ASR by attack and number of steps.

    Attributes:
        steps: the columns, rising.
        rows: attack → steps → mean ASR on the surrogate itself and on the merging methods, over tasks and methods.
    """

    steps: tuple[int, ...]
    rows: dict[str, dict[int, tuple[float, float]]]


def step_table(by_step: pd.DataFrame, axes: Axes, surrogate: str, epsilon: float) -> StepTable:
    """Every iterate that was kept, at one budget and from one surrogate."""
    here = by_step[(by_step["surrogate"] == surrogate) & (by_step["epsilon"] == epsilon)]
    kept = sorted(set(here["steps"].tolist()))
    rows: dict[str, dict[int, tuple[float, float]]] = {}
    for steps in kept:
        cells = black_box_methods(average_over_seeds(here[here["steps"] == steps]), axes)
        for attack, of_attack in cells.groupby("attack", sort=False, observed=True):
            means = of_attack[["surrogate_asr", "asr"]].mean()
            rows.setdefault(str(attack), {})[steps] = float(means["surrogate_asr"]), float(means["asr"])
    return StepTable(tuple(kept), rows)
