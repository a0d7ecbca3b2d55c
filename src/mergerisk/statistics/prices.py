"""What defenses gain and what they cost: every defended target beside the same without the defense, attacker by
attacker, on the same images.

An attacker holds one surrogate and uses the attack that is strongest from it, which may be another one on the
defended target than on the undefended one. Images are those that all models involved name rightly when clean.
Rates are means over tasks, ε50 is the budget at which that mean crosses one half; intervals are percentiles of a
bootstrap over images within tasks, with the same resamples for everything that is compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mergerisk.statistics.differences import paired_difference
from mergerisk.statistics.intervals import wilson_interval
from mergerisk.statistics.paired_attacks import Seen
from mergerisk.statistics.priced import PUBLIC, UNKNOWN, Accuracies, Bounded, PricedTarget
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from mergerisk.statistics.priced import Holder, Price


def price(
    outcomes: pd.DataFrame,
    clean: pd.DataFrame,
    defended: Mapping[str, str],
    holders: Sequence[Holder],
    epsilon: float,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[PricedTarget, ...]:
    """Every defended target with what it gains and costs.

    Args:
        outcomes: per image; see :mod:`mergerisk.transfer.rates`.
        clean: predictions on whole test splits.
        defended: target → the same without any defense.
        holders: the attackers.
        epsilon: one of the budgets, of relative ASR.
        seed: of the bootstrap.
        resamples: of it.
    """
    names = {*defended, *defended.values()}
    seen = Seen(outcomes[outcomes["target"].isin(names)], seed, resamples)
    found = []
    with one_thread():
        for target, undefended in defended.items():
            here = [holder for holder in holders if holder.target in {None, target}]
            known = [holder for holder in here if (target, holder.surrogate) in seen]
            unaware = [h for h in known if h.kind in {"unaware", "unseen"}]
            base = seen.worst(undefended, [h.surrogate for h in unaware])
            prices = {
                holder.surrogate: seen.price(
                    target, holder, undefended, _beside(seen, holder, undefended, base), epsilon
                )
                for holder in known
            }

            def worst(among: list[Holder], target: str = target, base: str | None = base) -> Price | None:
                chosen = seen.worst(target, [holder.surrogate for holder in among])
                holder = next((holder for holder in among if holder.surrogate == chosen), None)
                return None if holder is None else seen.price(target, holder, defended[target], base, epsilon)

            found.append(
                PricedTarget(
                    target,
                    undefended,
                    accuracies(clean, target, undefended),
                    tuple(prices.values()),
                    worst(unaware),
                    worst([holder for holder in known if holder.kind in PUBLIC]),
                )
            )
    return tuple(found)


def _beside(seen: Seen, holder: Holder, undefended: str, base: str | None) -> str | None:
    """Whose attacks on the undefended target an attacker's on the defended one are compared with."""
    if holder.undefended is not None and (undefended, holder.undefended) in seen:
        return holder.undefended
    return base if holder.kind in PUBLIC else None


def accuracies(clean: pd.DataFrame, target: str, undefended: str) -> Accuracies:
    """Clean accuracies of two targets on the same images, means over tasks.

    Intervals are Wilson's and Newcombe's, of tasks' means by the squares of their distances (Zou and Donner 2008):
    tasks count as independent, seeds of one task as fully dependent.
    """
    lost: list[tuple[float, float, float]] = []
    wanted = clean[clean["model"].isin([target, undefended])]
    by_model: tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]] = ([], [])
    for _, rows in wanted.groupby("task", observed=True, sort=False):
        right = rows.assign(right=rows["prediction"] == rows["label"]).pivot_table(
            index=["seed", "image"], columns="model", values="right", observed=True, aggfunc="first"
        )
        if not {target, undefended} <= {*right.columns}:
            continue
        right = right[[target, undefended]].dropna().astype(bool)
        parts = [part.to_numpy() for _, part in right.groupby(level="seed")]
        for column, several in enumerate(by_model):
            counts = [(int(part[:, column].sum()), len(part)) for part in parts]
            low, high = wilson_interval([k for k, _ in counts], [n for _, n in counts])
            several.append((float(np.mean([k / n for k, n in counts])), float(np.mean(low)), float(np.mean(high))))
        found = [
            paired_difference(
                (part[:, 0] & part[:, 1]).sum(),
                (part[:, 0] & ~part[:, 1]).sum(),
                (~part[:, 0] & part[:, 1]).sum(),
                (~part[:, 0] & ~part[:, 1]).sum(),
            )
            for part in parts
        ]
        value, low, high = np.mean(np.array(found, dtype=np.float64), axis=0)
        lost.append((float(value), float(low), float(high)))
    return Accuracies(_over_tasks(by_model[0]), _over_tasks(by_model[1]), _over_tasks(lost))


def _over_tasks(parts: Sequence[tuple[float, float, float]]) -> Bounded:
    if not parts:
        return UNKNOWN
    values, lows, highs = np.array(parts).T
    mean = values.mean()
    return Bounded(
        float(mean),
        float(mean - np.hypot.reduce(values - lows) / len(parts)),
        float(mean + np.hypot.reduce(highs - values) / len(parts)),
    )
