"""Dose and response: what diagnostics and outcomes do when one thing about a merge is changed.

What is only observed cannot tell a cause from its companion. Here targets differ by one change of known size, the
dose, and are shown the same images, so that each image answers for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mergerisk.errors import UserError
from mergerisk.seeds import numpy_generator
from mergerisk.statistics.correction import holm
from mergerisk.statistics.curves import epsilon50_of
from mergerisk.statistics.explaining.rows import complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Verdict = Literal["moves with", "does not", "cannot be told"]
State = Literal["moved", "stayed", "cannot be told"]

OUTCOME = "fooled"


@dataclass(frozen=True)
class Contrast:
    """Targets that differ in one thing.

    Attributes:
        name: of the change, as ``ties@placebo``.
        doses: target → how much it is changed: 0 without, 1 with it, or the place on a path.
    """

    name: str
    doses: Mapping[str, float]

    def __post_init__(self) -> None:
        if len(set(self.doses.values())) < 2:
            raise UserError(f"{self.name}: takes targets with two doses at least, got {self.doses}")

    @property
    def weights(self) -> NDArray[np.float64]:
        """What an image's values are weighed by, in the doses' order, to give its response: the slope of its least
        squares line, change per unit of dose; with and without, the difference."""
        dose = np.array([*self.doses.values()], dtype=np.float64)
        apart = dose - dose.mean()
        return np.asarray(apart / (apart @ apart))


def dose_table(
    table: pd.DataFrame, diagnostics: Sequence[str], contrasts: Sequence[Contrast], *, seed: int = 0
) -> pd.DataFrame:
    """Diagnostics and outcomes side by side, as they move.

    Args:
        table: a row per task, attack, epsilon, target and image that counts; see the package. A column
            ``surrogate`` keeps attackers apart.
        diagnostics: columns of it.
        contrasts: targets that differ in one thing.
        seed: of ε50's intervals.

    Returns:
        A row per ``change, surrogate, task, attack`` and ``target``, by rising ``dose``, each on the images that
        count for every target of the change: ``images``; ``asr`` at the middle budget; ``epsilon50`` with its
        ``status, low, high``; and the mean of each diagnostic, NaN where it has no value.
    """
    found, curves = [], []
    for contrast, surrogate, rows in _parts(table, contrasts):
        for (task, attack), own in rows.groupby(["task", "attack"], sort=False, observed=True):
            budgets = np.sort(own["epsilon"].unique())
            middle = budgets[(len(budgets) - 1) // 2]
            for target, dose in sorted(contrast.doses.items(), key=lambda item: item[1]):
                seen = own[own["target"] == target]
                fooled = seen.pivot_table(index="image", columns="epsilon", values=OUTCOME, observed=True) > 0.5
                curves.append((fooled.to_numpy(), budgets.tolist()))
                names = {"change": contrast.name, "surrogate": surrogate, "task": task, "attack": attack}
                asr = float(fooled[middle].mean()) if len(fooled) else np.nan
                means = seen[list(diagnostics)].mean().to_dict()
                found.append({**names, "target": target, "dose": dose, "images": len(fooled), "asr": asr} | means)
    crossed = epsilon50_of(curves, seed=seed)
    result = pd.DataFrame(found, columns=[*_DOSES, *diagnostics])
    for place, name in enumerate(("value", "status", "low", "high")):
        column = name if name == "status" else "epsilon50" if name == "value" else f"epsilon50_{name}"
        result.insert(8 + place, column, [getattr(one, name) for one in crossed])
    return result


_DOSES = ("change", "surrogate", "task", "attack", "target", "dose", "images", "asr")


def responses(
    table: pd.DataFrame,
    diagnostics: Sequence[str],
    contrasts: Sequence[Contrast],
    *,
    level: float = 0.05,
    small: float = 0.2,
    small_outcome: float = 0.02,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """By how much each diagnostic, and the outcome, change per unit of dose, on the same images.

    The outcome is the share of attacks and budgets that fool the target with an image: its mean is the area under
    the curve of ASR, which falls as ε50 grows and exists where ε50 does not. Every task weighs the same.

    *Moved*: the change differs from 0 at ``level``, adjusted by Holm: a diagnostic's over the diagnostics of one
    change, the outcome's over changes. *Stayed*: it does not, and its interval lies inside ± what is small.
    Else it cannot be told. The verdict on a diagnostic is

    * ``moves with``: both moved;
    * ``does not``: it moved, and the outcome stayed;
    * ``cannot be told``: one of the two is not clear, or the diagnostic stayed: the change says nothing of it.

    A change moves many things at once: that a diagnostic moves with outcomes makes it possible that it is why, and
    that it moves without them rules it out. See :func:`verdicts` for what all changes say together.

    Args:
        table: see :func:`dose_table`.
        diagnostics: columns of it.
        contrasts: targets that differ in one thing.
        level: of the tests; intervals are at 1 − level, of no more than one change.
        small: what is too little to be a move of a diagnostic, in its standard deviations between images of one
            target and task; of one that is the same for all images of a target, in its mean size.
        small_outcome: likewise, of outcomes, as a share.
        resamples: of the bootstrap over images in tasks, which keeps an image's targets together.
        seed: of the bootstrap.

    Returns:
        A row per ``surrogate, change, diagnostic``: ``response, low, high, p, p_holm, over`` (``images``, or
        ``tasks`` for what has one value per target and task), ``state``; ``images``, ``tasks``; the same of the
        outcome under ``outcome_response`` …; ``direction``, 1 where both rise, −1 where one falls, 0 where there
        is no verdict; ``verdict``.
    """
    found = []
    for contrast, surrogate, rows in _parts(table, contrasts):
        images = _by_image(rows, contrast, [OUTCOME, *diagnostics])
        outcome = _response(images, OUTCOME, contrast, level, resamples, seed)
        for name in diagnostics:
            own = _response(images, name, contrast, level, resamples, seed)
            found.append(
                {"surrogate": surrogate, "change": contrast.name, "diagnostic": name}
                | vars(own)
                | {f"outcome_{key}": value for key, value in vars(outcome).items() if key in _ESTIMATE}
            )
    columns = ["surrogate", "change", "diagnostic", *_Response.__dataclass_fields__]
    result = pd.DataFrame(found, columns=[*columns, *(f"outcome_{name}" for name in _ESTIMATE)])
    result["p_holm"] = result.groupby(["surrogate", "change"])["p"].transform(lambda p: holm(p))
    once = result.drop_duplicates(["surrogate", "change"])[["surrogate", "change", "outcome_p"]]
    once["outcome_p_holm"] = once.groupby("surrogate")["outcome_p"].transform(lambda p: holm(p))
    result = result.merge(once.drop(columns="outcome_p"), "left", ["surrogate", "change"])
    states = _states(result[["low", "high", "p_holm"]], small * result["unit"], level)
    ends = result[["outcome_low", "outcome_high", "outcome_p_holm"]]
    outcomes = _states(ends, pd.Series(small_outcome, index=result.index), level)
    result["state"], result["outcome_state"] = states, outcomes
    result["verdict"] = [_verdict(own, other) for own, other in zip(states, outcomes, strict=True)]
    signs = np.sign(result["response"]) * np.sign(result["outcome_response"])
    result["direction"] = np.where(result["verdict"] == "moves with", signs, 0).astype(int)
    return result


def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """What all changes say of each diagnostic together.

    ``moves with``: it moved with outcomes under one change at least, always in the same direction, and under none
    without them. ``does not``: it moved without them once, or once in the other direction. ``cannot be told``: no
    change moved it enough, or outcomes were not clear when one did.

    Args:
        found: from :func:`responses`.

    Returns:
        A row per ``surrogate, diagnostic``: how many changes say what (``with_, without, untold``), ``direction``
        and ``verdict``.
    """
    rows = []
    for (surrogate, name), own in found.groupby(["surrogate", "diagnostic"], sort=False):
        moved = own[own["verdict"] == "moves with"]
        against = int((own["verdict"] == "does not").sum())
        directions = set(moved["direction"])
        one = len(directions) == 1
        rows.append(
            {
                "surrogate": surrogate,
                "diagnostic": name,
                "with_": len(moved),
                "without": against,
                "untold": len(own) - len(moved) - against,
                "direction": int(next(iter(directions))) if one else 0,
                "verdict": "does not"
                if against or len(directions) > 1
                else "moves with"
                if one
                else "cannot be told",
            }
        )
    return pd.DataFrame(rows)


_ROUNDING = 1e-6
"""Of a value's size: a few times what float32 rounds."""

_ESTIMATE = ("response", "low", "high", "p")


@dataclass(frozen=True)
class _Response:
    """A mean change per unit of dose.

    Attributes:
        response: the mean over tasks of the mean over images.
        low: lower end of its interval.
        high: upper end.
        p: two-sided, against no change.
        over: what another study may have drawn anew.
        unit: what a change is small against.
        images: that it is a mean of.
        tasks: likewise.
    """

    response: float
    low: float
    high: float
    p: float
    over: Literal["images", "tasks"]
    unit: float
    images: int
    tasks: int


def _parts(table: pd.DataFrame, contrasts: Sequence[Contrast]) -> Iterator[tuple[Contrast, str, pd.DataFrame]]:
    """Of each change and surrogate the rows of the images that count for every target."""
    rows = complete(table, [OUTCOME])
    held = rows["surrogate"].astype(str) if "surrogate" in rows else pd.Series("", index=rows.index)
    for surrogate in held.unique():
        mine = rows[held == surrogate]
        for contrast in contrasts:
            own = mine[mine["target"].isin(list(contrast.doses))]
            counted = own.groupby(["task", "image"], observed=True)["target"].transform("nunique")
            same = own[(counted == len(contrast.doses)).to_numpy()]
            if len(same):
                yield contrast, str(surrogate), same


def _by_image(rows: pd.DataFrame, contrast: Contrast, names: Sequence[str]) -> pd.DataFrame:
    """Task × image by (column, target): means over attacks and budgets."""
    means: pd.DataFrame = rows.groupby(["task", "image", "target"], sort=False, observed=True)[list(names)].mean()
    wanted = pd.MultiIndex.from_product([names, contrast.doses], names=[None, "target"])
    return pd.DataFrame(means.unstack("target"), columns=wanted)


def _response(
    images: pd.DataFrame, name: str, contrast: Contrast, level: float, resamples: int, seed: int
) -> _Response:
    """Of one column."""
    values = images[name].dropna()
    tasks = values.index.get_level_values("task")
    by_task = {str(task): values.to_numpy(dtype=np.float64)[tasks == task] for task in tasks.unique()}
    alike = bool(by_task) and all((np.ptp(own, axis=0) == 0).all() for own in by_task.values())
    if not alike or name == OUTCOME:
        by_task = {task: own for task, own in by_task.items() if len(own) > 1}
    # Less the first dose's values: what does not change then has slopes of 0, not of rounding.
    slopes = {task: (own - own[:, :1]) @ contrast.weights for task, own in by_task.items()}
    count = sum(map(len, slopes.values()))
    if not slopes:
        return _Response(np.nan, np.nan, np.nan, np.nan, "images", np.nan, 0, 0)
    means = np.array([own.mean() for own in slopes.values()])
    mean, number = float(means.mean()), len(means)
    first = [own[:, 0] for own in by_task.values()]  # the first target's values are what a change is small against
    if alike and name != OUTCOME:
        unit = float(np.mean([abs(own).mean() for own in first]))
        low, high, p = _over_tasks(means, level, unit)
        return _Response(mean, low, high, p, "tasks", unit, count, number)
    unit = float(np.sqrt(np.mean([own.var(ddof=1) for own in first])))
    error = float(np.sqrt(sum(own.var(ddof=1) / len(own) for own in slopes.values()))) / number
    freedom = count - number
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    drawn = np.mean([_drawn(own, task, resamples, seed) for task, own in slopes.items()], axis=0)
    low, high = np.quantile(drawn, [level / 2, 1 - level / 2])
    return _Response(mean, float(low), float(high), p, "images", unit, count, number)


def _drawn(slopes: NDArray[np.float64], task: str, resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of images drawn with replacement; every column of one task and size sees the same draws."""
    random = numpy_generator(seed, "explaining", "doses", task, len(slopes))
    counts = random.multinomial(len(slopes), np.full(len(slopes), 1 / len(slopes)), resamples)
    return np.asarray(counts @ slopes / len(slopes))


def _over_tasks(means: NDArray[np.float64], level: float, unit: float) -> tuple[float, float, float]:
    """Interval and p by Student's t. What is the same in every task is known, not estimated; what changes by no
    more than float32 rounds did not change."""
    mean, count = float(means.mean()), len(means)
    if count > 1 and np.ptp(means) <= _ROUNDING * max(abs(mean), unit):
        return mean, mean, float(abs(mean) <= _ROUNDING * unit)
    if count < 2:
        return np.nan, np.nan, np.nan
    error = float(means.std(ddof=1) / np.sqrt(count))
    reach = float(stats.t.isf(level / 2, count - 1)) * error
    return mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, count - 1))


def _states(found: pd.DataFrame, small: pd.Series[float], level: float) -> list[State]:
    """Of each row's ends of an interval and p, and what is small."""
    rows = zip(found.to_numpy(dtype=np.float64).tolist(), small.tolist(), strict=True)
    return [
        "moved" if p < level else "stayed" if -little <= low and high <= little else "cannot be told"
        for (low, high, p), little in rows
    ]


def _verdict(own: State, outcome: State) -> Verdict:
    if own == "moved" and outcome == "moved":
        return "moves with"
    return "does not" if (own, outcome) == ("moved", "stayed") else "cannot be told"
