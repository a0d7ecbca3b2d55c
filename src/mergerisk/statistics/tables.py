"""Outcomes per image → the tables of a study: rates with intervals, accuracies, ε50, curves that fall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.statistics.curves import epsilon50, falls
from mergerisk.statistics.intervals import wilson_interval
from mergerisk.transfer.rates import CURVE, accuracies, rates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray


def rate_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """:func:`mergerisk.transfer.rates` with the 95 % Wilson intervals ``asr_low, asr_high, asr_all_low,
    asr_all_high`` beside the two ASRs."""
    table = rates(outcomes)
    for rate, denominator in (("asr", "images_both_correct"), ("asr_all", "images")):
        _insert_interval(table, rate, f"{rate}_", denominator)
    return table


def accuracy_table(clean: pd.DataFrame) -> pd.DataFrame:
    """:func:`mergerisk.transfer.accuracies` with 95 % Wilson intervals ``low, high``."""
    table = accuracies(clean)
    _insert_interval(table, "accuracy", "", "images")
    return table


def _insert_interval(table: pd.DataFrame, rate: str, prefix: str, denominator: str) -> None:
    trials = table[denominator].to_numpy()
    successes = np.rint(np.nan_to_num(table[rate].to_numpy()) * trials)
    low, high = wilson_interval(successes, trials)
    place = table.columns.get_loc(rate)
    assert isinstance(place, int)
    table.insert(place + 1, f"{prefix}low", low)
    table.insert(place + 2, f"{prefix}high", high)


def epsilon50_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """ε50 per curve, over the images that surrogate and target classify correctly when clean.

    Returns:
        ``task, attack, surrogate, target, seed, epsilon50, status, low, high``, ε in pixel units; see
        :class:`mergerisk.statistics.Epsilon50`.
    """
    rows: list[dict[str, Any]] = []
    for names, epsilons, matrices in _curves(outcomes):
        counts = matrices["counts"][:, 0]
        found = epsilon50(matrices["target_fooled"][counts], epsilons)
        rows.append(
            names | {"epsilon50": found.value, "status": found.status, "low": found.low, "high": found.high}
        )
    return pd.DataFrame(rows, columns=[*CURVE, "epsilon50", "status", "low", "high"])


def fall_table(outcomes: pd.DataFrame, single_step: Collection[str]) -> pd.DataFrame:
    """Curves that fall as ε grows, with the likely reason.

    Args:
        outcomes: per image.
        single_step: names of the attacks that take one step.

    Returns:
        ``task, attack, surrogate, target, seed, epsilon_from, epsilon_to, asr_from, asr_to, p_value, reason``.
    """
    columns = ["epsilon_from", "epsilon_to", "asr_from", "asr_to", "p_value", "reason"]
    rows: list[dict[str, Any]] = []
    for names, epsilons, matrices in _curves(outcomes):
        counts = matrices["counts"][:, 0]
        for fall in falls(
            matrices["target_fooled"][counts],
            surrogate_fooled=matrices["surrogate_fooled"][counts],
            zero_gradients=matrices["zero"][counts],
            single_step=names["attack"] in single_step,
        ):
            values = (
                epsilons[fall.position],
                epsilons[fall.position + 1],
                fall.asr_from,
                fall.asr_to,
                fall.p_value,
                fall.reason,
            )
            rows.append(names | dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows, columns=[*CURVE, *columns])


def _curves(
    outcomes: pd.DataFrame,
) -> Iterator[tuple[dict[str, Any], list[float], dict[str, NDArray[np.bool_]]]]:
    """Per curve: its names, its budgets, and images × budgets matrices of what happened."""
    label = outcomes["label"]
    happened = outcomes[[*CURVE, "epsilon", "image"]].assign(
        counts=(outcomes["surrogate_clean"] == label) & (outcomes["target_clean"] == label),
        target_fooled=outcomes["target_adversarial"] != label,
        surrogate_fooled=outcomes["surrogate_adversarial"] != label,
        zero=outcomes["zero_gradients"] > 0,
    )
    ordered = happened.sort_values(["image", "epsilon"])
    curve = ordered.groupby(CURVE, sort=False, observed=True).ngroup().to_numpy()
    by_curve = np.argsort(curve, kind="stable")
    starts = np.flatnonzero(np.diff(curve[by_curve], prepend=-1))
    names = ordered[CURVE].iloc[by_curve[starts]].itertuples(index=False, name=None)
    columns = {
        name: np.split(ordered[name].to_numpy()[by_curve], starts[1:])
        for name in ("epsilon", "counts", "target_fooled", "surrogate_fooled", "zero")
    }
    for values, epsilons, *matrices in zip(names, *columns.values(), strict=True):
        budgets = np.unique(epsilons).tolist()
        shaped = [matrix.reshape(-1, len(budgets)) for matrix in matrices]
        yield dict(zip(CURVE, values, strict=True)), budgets, dict(zip(list(columns)[1:], shaped, strict=True))
