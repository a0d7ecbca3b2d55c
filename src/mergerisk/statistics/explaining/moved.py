"""What moves when it is moved: dose and response of every measure, in short."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import FiniteFloat  # noqa: TC002 (pydantic reads it)

from mergerisk.errors import UserError
from mergerisk.statistics.explaining.beside import beside
from mergerisk.statistics.explaining.interventions import Verdict, dose_table, responses, verdicts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from mergerisk.statistics.explaining.interventions import Contrast


@dataclass(frozen=True)
class Dose:
    """A merge with so much of a change, on the images that count for every merge of the change.

    Attributes:
        target: the merge.
        dose: how much it is changed: 0 without, 1 with it, or the place on a path.
        value: mean of the measure, over tasks.
        asr: mean ASR at the middle budget, over tasks and attacks.
        epsilon50: median over tasks and attacks; 0 below the smallest budget, ∞ where none fools half.
    """

    target: str
    dose: FiniteFloat
    value: float
    asr: float
    epsilon50: float


@dataclass(frozen=True)
class Moved:
    """One change, one surrogate's attacks and one measure.

    Attributes:
        change: its name.
        surrogate: whom the attacks are made on.
        measure: the column of its diagnostic.
        verdict: whether outcomes move with it.
        direction: 1 where both rise, −1 where one falls, 0 without a verdict.
        doses: by rising dose.
    """

    change: str
    surrogate: str
    measure: str
    verdict: Verdict
    direction: Literal[-1, 0, 1]
    doses: tuple[Dose, ...]


@dataclass(frozen=True)
class Together:
    """What all changes say of a measure under one surrogate's attacks; see
    :func:`mergerisk.statistics.explaining.verdicts`."""

    surrogate: str
    measure: str
    verdict: Verdict
    direction: Literal[-1, 0, 1]


@dataclass(frozen=True)
class Moves:
    """What moves when one thing about a merge is changed."""

    moved: tuple[Moved, ...]
    together: tuple[Together, ...]


def moves(
    outcomes: pd.DataFrame,
    causes: pd.DataFrame,
    pair_causes: pd.DataFrame | None,
    clean: pd.DataFrame | None,
    contrasts: Sequence[Contrast],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Moves | None:
    """Dose and response of every measure of a run; None where nothing was changed.

    Args:
        outcomes: per image; these tables as :func:`mergerisk.statistics.explaining.explain` takes them.
        causes: per image, surrogate and target.
        pair_causes: per surrogate, target, measure and part.
        clean: predictions on whole test splits.
        contrasts: targets that differ in one thing.
        resamples: of the bootstrap.
        seed: of it.
    """
    if not contrasts:
        return None
    targets = list(dict.fromkeys(name for contrast in contrasts for name in contrast.doses))
    try:
        found = beside(outcomes, causes, pair_causes, clean, targets=targets)
    except UserError:
        return None
    names = [measure.name for measure in found.measures]
    # A surrogate that is one of a change's merges has no attacks on itself to compare.
    rows = found.rows[~found.rows["surrogate"].isin(targets)]
    if rows.empty:
        return None
    table = dose_table(rows, names, contrasts, seed=seed)
    judged = responses(rows, names, contrasts, resamples=resamples, seed=seed)
    curves = {key: _doses(own, names) for key, own in table.groupby(["change", "surrogate"], sort=False)}
    columns = ["change", "surrogate", "diagnostic", "verdict", "direction"]
    moved = tuple(
        Moved(change, surrogate, name, verdict, direction, curves[change, surrogate][name])
        for change, surrogate, name, verdict, direction in zip(*(judged[c].tolist() for c in columns), strict=True)
        if (change, surrogate) in curves
    )
    said = verdicts(judged)
    together = tuple(
        Together(*row) for row in zip(*(said[name].tolist() for name in ["surrogate", *columns[2:]]), strict=True)
    )
    return Moves(moved, together)


def _doses(table: pd.DataFrame, names: Sequence[str]) -> dict[str, tuple[Dose, ...]]:
    """Of one change and surrogate, per measure."""
    half = table["epsilon50"].where(table["status"] == "measured", table["status"].map(_CENSORED).astype(float))
    per: dict[str, list[Dose]] = {name: [] for name in names}
    for key, own in table.assign(half=half).groupby(["dose", "target"], sort=True):
        dose, target = float(str(key[0])), str(key[1])
        known = np.sort(own["half"].dropna().to_numpy())
        middle = float(known[(len(known) - 1) // 2]) if len(known) else math.nan
        for name in names:
            per[name].append(Dose(target, dose, float(own[name].mean()), float(own["asr"].mean()), middle))
    return {name: tuple(doses) for name, doses in per.items()}


_CENSORED = {"below_smallest": 0.0, "not_reached": math.inf}
