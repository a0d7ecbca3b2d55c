"""What an audit reads off a study's outcomes: per audited model, surrogate and budget, the strongest attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.statistics import Epsilon50, epsilon50, paired_ratio_interval, wilson_interval
from mergerisk.transfer import what_happened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pandas as pd

    from mergerisk.report.risk import Mean


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One model under the strongest of the attacks from one surrogate at one budget.

    Rates are in [0, 1], over the attacked images of all tasks together, with 95 % intervals: Wilson's, and Bonett
    and Price's for the ratio.

    Attributes:
        model: what is attacked.
        surrogate: what the attack was made on.
        attack: the one with the highest ASR on the model.
        epsilon: in pixel units.
        images: attacked.
        images_both_correct: those that surrogate and model classify correctly when clean.
        asr: among these, the share that the model gets wrong under attack.
        asr_all: among all, likewise; clean errors count.
        surrogate_asr: what the attack does to the surrogate itself, on the same images as ``asr``.
        relative_asr: ``asr / surrogate_asr``; NaN where the surrogate is never fooled.
        delta_asr: their difference, in percentage points.
        white_box: whether the surrogate is the model itself.
    """

    model: str
    surrogate: str
    attack: str
    epsilon: float
    images: int
    images_both_correct: int
    asr: float
    asr_low: float
    asr_high: float
    asr_all: float
    asr_all_low: float
    asr_all_high: float
    surrogate_asr: float
    relative_asr: float
    relative_asr_low: float
    relative_asr_high: float
    delta_asr: float
    white_box: bool


@dataclass(frozen=True)
class Curve:
    """The ε50 of one model from one surrogate.

    Attributes:
        model: what is attacked.
        surrogate: what the attack was made on.
        attack: the strongest over all budgets together.
        epsilon50: the budget that fools half of the images, with a bootstrap interval.
    """

    model: str
    surrogate: str
    attack: str
    epsilon50: Epsilon50


@dataclass(frozen=True)
class ModelVerdict:
    """One audited model.

    Attributes:
        name: of the released model, or of the candidate method.
        released: whether it was made elsewhere, and is going to be released as it is.
        clean_accuracy: mean over tasks, on whole test splits, with a 95 % interval.
        by_task: task → clean accuracy.
        readings: by surrogate and budget.
        curves: by surrogate.
        worst: the reading from the worst attacker, which is the surrogate with the highest ASR at the reference
            budget, white boxes left out; None if there is none.
    """

    name: str
    released: bool
    clean_accuracy: Mean
    by_task: dict[str, float]
    readings: tuple[Reading, ...]
    curves: tuple[Curve, ...]
    worst: Reading | None

    def at(self, surrogate: str, epsilon: float) -> Reading | None:
        """The reading from a surrogate at a budget."""
        found = (r for r in self.readings if r.surrogate == surrogate and math.isclose(r.epsilon, epsilon))
        return next(found, None)

    def is_worst(self, surrogate: str | None, epsilon: float | None) -> bool:
        """Whether a value comes from the worst attacker, at the reference budget if it belongs to one."""
        worst = self.worst
        return worst is not None and surrogate == worst.surrogate and epsilon in {None, worst.epsilon}


def read_outcomes(outcomes: pd.DataFrame, models: Collection[str]) -> tuple[list[Reading], list[Curve]]:
    """Readings and curves of the audited models.

    Args:
        outcomes: per image; see :mod:`mergerisk.transfer.rates`. Of one seed, so that no image counts twice.
        models: the audited ones.
    """
    found = what_happened(outcomes)
    happened = outcomes[["task", "attack", "surrogate", "target", "epsilon", "image"]].assign(
        counts=found.counts, wrong=found.target_wrong, surrogate_wrong=found.surrogate_wrong
    )
    readings, curves = [], []
    for (model, surrogate), here in _groups(happened[happened["target"].isin(models)], ["target", "surrogate"]):
        for (epsilon,), at_budget in _groups(here, ["epsilon"]):
            tried = [
                _reading(model, surrogate, attack, float(epsilon), rows)
                for (attack,), rows in _groups(at_budget, ["attack"])
            ]
            readings.append(max(tried, key=lambda reading: np.nan_to_num(reading.asr, nan=-1.0)))
        curves.append(_curve(model, surrogate, here))
    return readings, curves


def _groups(frame: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """In the order of the study."""
    for names, rows in frame.groupby(keys, sort=False, observed=True):
        yield (names if isinstance(names, tuple) else (names,)), rows


def _reading(model: str, surrogate: str, attack: str, epsilon: float, rows: pd.DataFrame) -> Reading:
    counts, wrong, surrogate_wrong = (rows[name].to_numpy() for name in ("counts", "wrong", "surrogate_wrong"))
    images, correct = len(rows), int(counts.sum())
    hit, surrogate_hit = int((wrong & counts).sum()), int((surrogate_wrong & counts).sum())
    both = int((wrong & surrogate_wrong & counts).sum())
    low, high = wilson_interval([hit, wrong.sum()], [correct, images])
    relative_low, relative_high = paired_ratio_interval(both, hit - both, surrogate_hit - both)
    asr = hit / correct if correct else np.nan
    surrogate_asr = surrogate_hit / correct if correct else np.nan
    known = surrogate_hit > 0
    return Reading(
        model=model,
        surrogate=surrogate,
        attack=attack,
        epsilon=epsilon,
        images=images,
        images_both_correct=correct,
        asr=asr,
        asr_low=float(low[0]),
        asr_high=float(high[0]),
        asr_all=int(wrong.sum()) / images,
        asr_all_low=float(low[1]),
        asr_all_high=float(high[1]),
        surrogate_asr=surrogate_asr,
        relative_asr=hit / surrogate_hit if known else np.nan,
        relative_asr_low=float(relative_low) if known else np.nan,
        relative_asr_high=float(relative_high) if known else np.nan,
        delta_asr=100 * (asr - surrogate_asr),
        white_box=surrogate == model,
    )


def _curve(model: str, surrogate: str, rows: pd.DataFrame) -> Curve:
    counted = rows[rows["counts"]]
    means = counted.groupby("attack", sort=False, observed=True)["wrong"].mean()
    attack = str(means.idxmax()) if len(means) else str(rows["attack"].iloc[0])
    budgets = np.sort(rows["epsilon"].unique())
    matrix = (
        counted[counted["attack"] == attack]
        .pivot_table(index=["task", "image"], columns="epsilon", values="wrong", observed=True)
        .to_numpy(dtype=bool)
        .reshape(-1, len(budgets))
    )
    return Curve(model, surrogate, attack, epsilon50(matrix, budgets.tolist()))
