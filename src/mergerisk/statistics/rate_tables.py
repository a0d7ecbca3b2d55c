"""Outcomes per image → the tables of a study: rates with intervals, accuracies, ε50, curves that fall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.statistics.curves import epsilon50_of, falls
from mergerisk.statistics.intervals import paired_ratio_interval, wilson_interval
from mergerisk.transfer.rates import CURVE, accuracies, count, rates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from mergerisk.transfer.rates import Counted


def rate_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """:func:`mergerisk.transfer.rates` with 95 % intervals; see :func:`with_intervals`."""
    return with_intervals(rates(outcomes))


def with_intervals(rates: pd.DataFrame) -> pd.DataFrame:
    """What :func:`mergerisk.transfer.rates` counted, with 95 % intervals beside the rates.

    Wilson's ``asr_low, asr_high, asr_all_low, asr_all_high`` beside the two ASRs; ``relative_asr_low,
    relative_asr_high`` by :func:`mergerisk.statistics.paired_ratio_interval`, since surrogate and target are tried
    on the same images: NaN where relative ASR is, infinite above where the surrogate's ASR may be 0.
    """
    table = rates.copy()
    for rate, denominator in (("asr", "images_both_correct"), ("asr_all", "images")):
        _insert_interval(table, rate, f"{rate}_", denominator)
    trials, both = (table[name].to_numpy(dtype=np.float64) for name in _COUNTS)
    fooled, own = (
        np.rint(np.nan_to_num(table[name].to_numpy()) * trials) - both for name in ("asr", "surrogate_asr")
    )
    known = table["relative_asr"].notna().to_numpy()
    ends = [np.where(known, end, np.nan) for end in paired_ratio_interval(both, fooled, own)]
    _insert_beside(table, "relative_asr", "relative_asr_", ends)
    return table


_COUNTS = ("images_both_correct", "images_both_fooled")


def accuracy_table(clean: pd.DataFrame) -> pd.DataFrame:
    """:func:`mergerisk.transfer.accuracies` with 95 % Wilson intervals ``low, high``."""
    table = accuracies(clean)
    _insert_interval(table, "accuracy", "", "images")
    return table


def _insert_interval(table: pd.DataFrame, rate: str, prefix: str, denominator: str) -> None:
    trials = table[denominator].to_numpy()
    successes = np.rint(np.nan_to_num(table[rate].to_numpy()) * trials)
    _insert_beside(table, rate, prefix, wilson_interval(successes, trials))


def _insert_beside(table: pd.DataFrame, rate: str, prefix: str, ends: Sequence[NDArray[np.float64]]) -> None:
    place = table.columns.get_loc(rate)
    assert isinstance(place, int)
    for offset, (name, end) in enumerate(zip(("low", "high"), ends, strict=True), start=1):
        table.insert(place + offset, f"{prefix}{name}", end)


def epsilon50_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """ε50 per curve, over the images that surrogate and target classify correctly when clean.

    Returns:
        ``task, attack, surrogate, target, seed, epsilon50, status, low, high``, ε in pixel units; see
        :class:`mergerisk.statistics.Epsilon50`.
    """
    return _epsilon50_table(_curves(outcomes))


def fall_table(outcomes: pd.DataFrame, single_step: Collection[str]) -> pd.DataFrame:
    """Curves that fall as ε grows, with the likely reason.

    Args:
        outcomes: per image.
        single_step: names of the attacks that take one step.

    Returns:
        ``task, attack, surrogate, target, seed, epsilon_from, epsilon_to, asr_from, asr_to, p_value, reason``, the
        last a :class:`mergerisk.statistics.Fact`.
    """
    return _fall_table(_curves(outcomes), single_step)


def curve_tables(
    outcomes: pd.DataFrame, single_step: Collection[str], counted: Counted | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """:func:`epsilon50_table` and :func:`fall_table`, with the outcomes put in order once.

    Args:
        outcomes: per image.
        single_step: names of the attacks that take one step.
        counted: :func:`mergerisk.transfer.count` of the outcomes, where somebody has it already.
    """
    curves = list(_curves(outcomes, counted))
    return _epsilon50_table(curves), _fall_table(curves, single_step)


@dataclass(frozen=True, eq=False)
class _Curve:
    """One curve: the values of `CURVE`, its budgets, rising, and images × budgets of those images that count.

    Attributes:
        zero: whether crafting met an all-zero gradient.
    """

    names: tuple[Any, ...]
    epsilons: tuple[float, ...]
    fooled: NDArray[np.bool_]
    surrogate_fooled: NDArray[np.bool_]
    zero: NDArray[np.bool_]


def _epsilon50_table(curves: Iterable[_Curve]) -> pd.DataFrame:
    kept = list(curves)
    found = epsilon50_of([(curve.fooled, curve.epsilons) for curve in kept])
    rows = [
        (*curve.names, half.value, half.status, half.low, half.high)
        for curve, half in zip(kept, found, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*CURVE, "epsilon50", "status", "low", "high"])


def _fall_table(curves: Iterable[_Curve], single_step: Collection[str]) -> pd.DataFrame:
    columns = ["epsilon_from", "epsilon_to", "asr_from", "asr_to", "p_value", "reason"]
    attack = CURVE.index("attack")
    rows: list[tuple[Any, ...]] = []
    for curve in curves:
        for fall in falls(
            curve.fooled,
            surrogate_fooled=curve.surrogate_fooled,
            zero_gradients=curve.zero,
            single_step=curve.names[attack] in single_step,
        ):
            budgets = curve.epsilons[fall.position : fall.position + 2]
            rows.append((*curve.names, *budgets, fall.asr_from, fall.asr_to, fall.p_value, fall.reason))
    return pd.DataFrame(rows, columns=[*CURVE, *columns])


def _curves(outcomes: pd.DataFrame, counted: Counted | None = None) -> Iterator[_Curve]:
    """Per curve, in the order in which they first occur."""
    known = count(outcomes) if counted is None else counted
    happened = {
        "counts": known.happened.counts,
        "wrong": known.happened.target_wrong,
        "surrogate_wrong": known.happened.surrogate_wrong,
        "zero": outcomes["zero_gradients"].to_numpy() > 0,
    }
    epsilon, image = outcomes["epsilon"].to_numpy(), outcomes["image"].to_numpy()
    curve_of = known.rates.groupby(CURVE, sort=False).ngroup().to_numpy()
    curve = curve_of[known.setting_of]
    order = np.lexsort((epsilon, image, curve))
    starts = np.flatnonzero(np.diff(curve[order], prepend=-1))
    names = outcomes[CURVE].iloc[order[starts]].itertuples(index=False, name=None)
    columns = [np.split(values[order], starts[1:]) for values in (epsilon, *happened.values())]
    for values, epsilons, *flat in zip(names, *columns, strict=True):
        budgets = np.unique(epsilons)
        counts, *matrices = (column.reshape(-1, len(budgets)) for column in flat)
        yield _Curve(values, tuple(budgets.tolist()), *(matrix[counts[:, 0]] for matrix in matrices))
