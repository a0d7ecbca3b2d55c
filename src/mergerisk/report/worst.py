"""Every model under its worst attacker: the one of the study's surrogates that fools it most often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.report.epsilon50 import ALL
from mergerisk.report.risk import compared_cells

if TYPE_CHECKING:
    from mergerisk.report.epsilon50 import Epsilon50
    from mergerisk.report.risk import Mean
    from mergerisk.report.view import View


@dataclass(frozen=True)
class WorstAttacker:
    """One model under one surrogate's attacks, at the budget that is spoken of first.

    Attributes:
        surrogate: with the highest mean ASR on the model, which is never the model itself.
        asr: mean over tasks and attacks.
        images: that surrogate and model both classify correctly when clean, over all tasks; of several seeds the
            mean.
        relative: mean ASR over the surrogate's own.
        epsilon50: median over tasks and attacks; None if none was measured.
    """

    surrogate: str
    asr: Mean
    images: int
    relative: Mean
    epsilon50: Epsilon50 | None


def worst_attackers(view: View) -> dict[str, WorstAttacker]:
    """Target → its worst attacker; targets of which no ASR is known are left out.

    Holders of merged models count only where the study has no other surrogates. Chosen as the largest of several
    noisy rates, an ASR is rather too high than too low where surrogates are close.
    """
    outside = [name for name in view.axes.surrogates if name not in view.axes.methods]
    found = {}
    for target in view.axes.targets:
        known = {
            surrogate: mean
            for surrogate in outside or view.axes.surrogates
            if not _is_same(surrogate, target)
            and not math.isnan((mean := view.risks[surrogate, view.epsilon, "asr"][target]).value)
        }
        if known:
            worst = max(known, key=lambda surrogate: known[surrogate].value)
            found[target] = WorstAttacker(
                worst,
                known[worst],
                _images(view, worst, target),
                view.risks[worst, view.epsilon, "relative"][target],
                view.medians.get((worst, ALL, ALL, target)),
            )
    return found


def _is_same(surrogate: str, target: str) -> bool:
    """Whether an attack may be made on what is attacked: ``expert/NAME`` is the expert of a task of that name."""
    return surrogate == target or (target == "expert" and surrogate.startswith("expert/"))


def _images(view: View, surrogate: str, target: str) -> int:
    rows = compared_cells(view.cells, view.axes, surrogate, view.epsilon)[target]
    # Counts are summed over seeds; attacks share a task's images.
    by_task = rows.groupby("task", observed=True)["images_both_correct"].mean()
    return round(float(by_task.sum()) / max(1, view.summary.results["seed"].nunique()))
