"""From a finished run to what lowers the risk in it, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mergerisk.statistics.priced import Holder, PricedTarget  # pydantic reads it
from mergerisk.statistics.prices import price
from mergerisk.study.tables.defenses import CHECKS, COSTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from mergerisk.statistics.priced import Kind
    from mergerisk.study import FinishedRun
    from mergerisk.study.schema import Study


@dataclass(frozen=True)
class FoundCheck:
    """How one check of a defended model came out; of several seeds the worst.

    Attributes:
        name: of the check.
        passed: null where it is missing.
        figure: what was looked at.
        limit: what it is held against.
        images: looked at.
        says: what the figure is, in words.
    """

    name: str
    passed: bool | None
    figure: float
    limit: float
    images: int
    says: str


@dataclass(frozen=True)
class Cost:
    """What a defense takes; of several seeds the mean.

    Attributes:
        passes: forward passes for one answer.
        seconds: that an answer takes, per image;
        undefended_seconds: that one of the undefended model does.
        bytes: of weights;
        undefended_bytes: of the undefended model's.
        training: images passed to the weights and back, to make it of the undefended model;
        gradient: images passed to the pixels and back, likewise.
    """

    passes: int
    seconds: float
    undefended_seconds: float
    bytes: int
    undefended_bytes: int
    training: int
    gradient: int


@dataclass(frozen=True)
class Offer:
    """One defended target: what it gains, what it costs, and whether it may be said to defend.

    Attributes:
        priced: what it gains against every attacker, and the clean accuracy that it costs.
        checks: every one, in order.
        not_shown: the names of those that failed or are missing.
        gains: whether ε50 under the worst attacker is higher than without the defense, beyond chance.
        defends: whether that may be said: it gains, and every check passed.
        cost: of answers and training.
        points_per_unit: percentage points of clean accuracy for each 1/255 of ε50 gained under the worst attacker;
            null where nothing was gained, or it is not known how much.
    """

    priced: PricedTarget
    checks: tuple[FoundCheck, ...]
    not_shown: tuple[str, ...]
    gains: bool
    defends: bool
    cost: Cost
    points_per_unit: float


@dataclass(frozen=True)
class PriceList:
    """What lowers the risk.

    Attributes:
        epsilon: the budget of relative ASRs, in [0,1] pixel units.
        epsilons: all budgets.
        offers: one per defended target, in the study's order.
    """

    epsilon: float
    epsilons: tuple[float, ...]
    offers: tuple[Offer, ...]


def price_list(run: FinishedRun, *, seed: int = 0) -> PriceList | None:
    """What lowers the risk in a run; None where nothing is defended.

    Args:
        run: what was run.
        seed: of the bootstrap.
    """
    study = run.study
    tables = {kept.declared.name: kept.rows for kept in run.further}
    if not study.defended or not {CHECKS.name, COSTS.name} <= {*tables}:
        return None
    epsilon = study.budgets.middle
    priced = price(run.outcomes, run.clean, study.undefended, tuple(holders(study)), epsilon, seed=seed)
    offers = tuple(_offer(one, tables[CHECKS.name], tables[COSTS.name]) for one in priced)
    return PriceList(epsilon, study.budgets.epsilon, offers)


def holders(study: Study) -> Iterator[Holder]:
    """The study's attackers, by what they know."""
    labels = {spec.label for spec in study.surrogates}
    for spec in study.surrogates:
        kind = spec.references[0].kind
        if kind == "merged":
            if spec.label in study.defended:
                undefended = study.undefended[spec.label]
                yield Holder(spec.label, "white_box", spec.label, undefended if undefended in labels else None)
            else:
                for label, of in study.undefended.items():
                    if of == spec.label:
                        yield Holder(spec.label, "undefended", label, spec.label)
        else:
            knows: dict[str, Kind] = {
                "aware": "aware", "adaptive": "adaptive", "unseen": "unseen", "own_merge": "own_merge",
            }  # fmt: skip
            alike = "expert" if spec.knows else spec.label
            yield Holder(spec.label, knows.get(kind, "unaware"), spec.knows, alike if alike in labels else None)


def _offer(priced: PricedTarget, checks: pd.DataFrame, costs: pd.DataFrame) -> Offer:
    found = tuple(_checks(checks[checks["target"] == priced.target]))
    failed = tuple(one.name for one in found if one.passed is not True)
    worst = priced.worst
    gains = worst is not None and worst.gain.low > 1 and worst.bound in {"exact", "at_least"}
    return Offer(
        priced,
        found,
        failed,
        gains,
        gains and bool(found) and not failed,
        _cost(priced.target, costs),
        priced.points_per_unit,
    )


def _cost(target: str, costs: pd.DataFrame) -> Cost:
    """Of a model behind several defenses, what all of them take."""
    layers = [costs[costs["target"] == target]]
    while len(behind := costs[costs["target"].isin(layers[-1]["undefended"])]):
        layers.append(behind)
    means = [layer.drop(columns=["target", "undefended"]).mean() for layer in layers]
    outer, inner = means[0], means[-1]
    return Cost(
        round(outer["passes"]),
        float(outer["seconds"]),
        float(inner["undefended_seconds"]),
        round(outer["bytes"]),
        round(inner["undefended_bytes"]),
        *(round(sum(layer[work] for layer in means)) for work in ("training", "gradient")),
    )


def _checks(rows: pd.DataFrame) -> Iterator[FoundCheck]:
    """Of several seeds the one that failed, or is missing."""
    for name, several in rows.groupby("check", sort=False, observed=True):
        order = np.nan_to_num(several["passed"].to_numpy(dtype=np.float64), nan=-1.0)
        worst = several.iloc[int(order.argmin())]
        passed = float(worst["passed"])
        yield FoundCheck(
            str(name),
            None if np.isnan(passed) else bool(passed),
            float(worst["figure"]),
            float(worst["limit"]),
            int(worst["images"]),
            str(worst["says"]),
        )
