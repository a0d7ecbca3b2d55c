"""Cells: one per task, attack, surrogate, target and budget, with seeds averaged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mergerisk.report.summary import REFERENCE_TARGETS
from mergerisk.statistics import paired_ratio_interval, wilson_interval
from mergerisk.statistics.claim_tables import SATURATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from mergerisk.report.summary import Summary

KEYS = ["task", "attack", "surrogate", "target", "epsilon"]
COUNTS = ["images", "images_both_correct", "images_both_fooled"]
RATES = [
    "clean_accuracy_surrogate", "clean_accuracy_target", "asr", "asr_low", "asr_high",
    "asr_all", "asr_all_low", "asr_all_high",
    "surrogate_asr", "relative_asr", "relative_asr_low", "relative_asr_high", "delta_asr",
    "same_mistake", "mean_l2",
]  # fmt: skip


@dataclass(frozen=True)
class Axes:
    """The names a report's tables and charts run over, in the order of the study.

    Attributes:
        targets: merging methods first, then the reference targets that occur: ingredients, lines that are no
            merges, and merges that something is changed about.
        methods: the merging methods alone.
        epsilons: measured budgets in [0,1] pixel units, ascending.
    """

    tasks: tuple[str, ...]
    attacks: tuple[str, ...]
    surrogates: tuple[str, ...]
    methods: tuple[str, ...]
    targets: tuple[str, ...]
    epsilons: tuple[float, ...]


def axes_of(summary: Summary) -> Axes:
    """Collect the axes: the study's order, then whatever else the tables hold, in order of appearance.

    A surrogate may also be a merging method (white box); it stays among the methods.
    """
    run, results, accuracy = summary.run, summary.results, summary.accuracy
    targets = _in_order(run.methods, [*results["target"].tolist(), *accuracy["model"].tolist()])
    beside = (*REFERENCE_TARGETS, *run.references, *run.changed)
    methods = tuple(name for name in targets if name not in beside)
    references = tuple(name for name in beside if name in targets)
    measured = results["epsilon"].astype(float).dropna().unique().tolist()
    return Axes(
        tasks=_in_order(run.tasks, [*results["task"].tolist(), *accuracy["task"].tolist()]),
        attacks=_in_order(run.attacks, results["attack"].tolist()),
        surrogates=_in_order(run.surrogates, results["surrogate"].tolist()),
        methods=methods,
        targets=methods + references,
        epsilons=tuple(sorted(float(value) for value in (measured or run.epsilons))),
    )


def average_over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: rates and interval ends averaged over seeds (NaN left out), image counts summed.

    Seeds reuse images, so their errors are not independent: averaging the ends of their intervals keeps the
    width of a single seed's. Relative ASR is the ratio of the mean ASRs, its interval that of one seed's images
    (`mergerisk.statistics.paired_ratio_interval`).

    Returns:
        `KEYS`, `COUNTS` and `RATES`; ``surrogate_asr_low``, ``surrogate_asr_high``, Wilson's; ``correlation`` of
        the two being fooled, image by image (φ; 0 where one of them always or never is); ``saturated`` and
        ``white_box``.
    """
    rates = [name for name in RATES if name in results.columns]
    frame = results[[*KEYS, *COUNTS, *rates]].copy()
    frame[rates] = frame[rates].astype(float)
    both_correct = frame["images_both_correct"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        frame["_both"] = frame["images_both_fooled"].to_numpy(dtype=float) / both_correct
    frame["_images"] = np.where(both_correct > 0, both_correct, np.nan)
    how = dict.fromkeys(COUNTS, "sum") | dict.fromkeys([*RATES, "_both", "_images"], "mean")
    cells = frame.groupby(KEYS, sort=False, observed=True).agg(how).reset_index()
    images, both, asr, own = (
        cells.pop(name).to_numpy() if name.startswith("_") else cells[name].to_numpy()
        for name in ("_images", "_both", "asr", "surrogate_asr")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        cells["relative_asr"] = np.where(own > 0, asr / own, np.nan)
        spread = np.sqrt(asr * (1 - asr) * own * (1 - own))
        cells["correlation"] = np.where(spread > 0, np.clip((both - asr * own) / spread, -1, 1), 0.0)
    ratio = paired_ratio_interval(images * both, images * (asr - both), images * (own - both))
    wilson = wilson_interval(images * own, images)
    for place, end in enumerate(("low", "high")):
        cells[f"relative_asr_{end}"] = np.where(own > 0, ratio[place], np.nan)
        cells[f"surrogate_asr_{end}"] = wilson[place]
    # A cell is saturated where both are: it says nothing of the way from the one to the other.
    cells["saturated"] = (asr >= SATURATED) & (own >= SATURATED)
    cells["white_box"] = cells["surrogate"] == cells["target"]
    return cells


def black_box_methods(cells: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """The cells that claims rest on: targets are merging methods other than the surrogate itself."""
    return cells[cells["target"].isin(axes.methods) & ~cells["white_box"]]


def from_outside(cells: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Those of attackers who hold no merged model at all, where there are any."""
    black = black_box_methods(cells, axes)
    outside = black[~black["surrogate"].isin(axes.methods)]
    return outside if len(outside) else black


def from_first(cells: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Those of attacks made on the surrogate spoken of first: the study's first, where it attacks any method."""
    black = black_box_methods(cells, axes)
    first = black[black["surrogate"].isin(axes.surrogates[:1])]
    return first if len(first) else black


def default_epsilon(cells: pd.DataFrame, axes: Axes) -> float:
    """The measured budget whose mean ASR, over merging methods, is nearest one half (the smaller on a tie).

    Counted are attacks made on the surrogate spoken of first. There a ceiling or floor hides least. With nothing
    measured it is the middle of the grid; NaN without one.
    """
    means = from_first(cells, axes).groupby("epsilon")["asr"].mean().dropna()
    if not len(means):
        return axes.epsilons[(len(axes.epsilons) - 1) // 2] if axes.epsilons else math.nan
    distance = {
        epsilon: abs(mean - 0.5) for epsilon, mean in zip(means.index.tolist(), means.tolist(), strict=True)
    }
    # rounded, so that a tie is not decided by the last digit
    return float(min(sorted(distance), key=lambda epsilon: round(distance[epsilon], 12)))


def cell_columns(cells: pd.DataFrame, axes: Axes) -> dict[str, list[Any]]:
    """The cells as columns for the page: names become indices into the axes, rates have six digits."""
    names: dict[str, Sequence[Any]] = {
        "task": axes.tasks, "attack": axes.attacks, "surrogate": axes.surrogates, "target": axes.targets,
        "epsilon": axes.epsilons,
    }  # fmt: skip
    columns: dict[str, list[Any]] = {}
    for column, order in names.items():
        position = {name: index for index, name in enumerate(order)}
        columns[column] = [position[value] for value in cells[column].tolist()]
    for column in COUNTS:
        columns[column] = [int(value) for value in cells[column].fillna(0).tolist()]
    for column in RATES:
        digits = 2 if column == "delta_asr" else 6
        columns[column] = rounded(cells[column].to_numpy(dtype=float), digits)
    columns["saturated"] = [int(value) for value in cells["saturated"].tolist()]
    return columns


def rounded(values: Iterable[float], digits: int = 8) -> list[float | None]:
    """Rounded numbers for JSON; None where one is not finite (an interval whose lower end alone is known has no
    upper one). Whole numbers lose their ``.0``."""
    tidy = np.round(np.asarray(list(values), dtype=float), digits)
    return [None if not math.isfinite(v) else int(v) if v == int(v) else v for v in tidy.tolist()]


def _in_order(first: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    """The names found, those listed first leading."""
    present = dict.fromkeys(found)
    return tuple(dict.fromkeys([*(name for name in first if name in present), *present]))
