"""Two finished runs → what both hold, compared setting by setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mergerisk.report.comparison.matrices import SETTING, matrices
from mergerisk.report.comparison.resampling import draws, ends, resampled
from mergerisk.report.comparison.study_differences import differing_fields
from mergerisk.statistics import holm, mcnemar, paired_difference, unpaired_difference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from mergerisk.report.comparison.matrices import Matrices
    from mergerisk.report.comparison.study_differences import FieldDifference
    from mergerisk.study import FinishedRun

AT_ONCE = 400
"""Settings resampled together, to bound memory."""

DIFFERENCE = ["difference", "low", "high"]
SETTING_COLUMNS = [
    "task", "seed_a", "seed_b", *SETTING, "paired", "images_a", "images_b",
    "asr_a", "asr_b", *(f"asr_{name}" for name in DIFFERENCE), "p_value", "p_adjusted",
    "relative_a", "relative_b", *(f"relative_{name}" for name in DIFFERENCE),
]  # fmt: skip
ACCURACY_COLUMNS = [
    "task", "seed_a", "seed_b", "model", "paired", "images_a", "images_b", "accuracy_a", "accuracy_b", *DIFFERENCE,
    "p_value",
]  # fmt: skip
TARGET_COLUMNS = ["target", "settings", *(f"{rate}_{name}" for rate in ("asr", "relative") for name in DIFFERENCE)]


@dataclass(frozen=True)
class Only:
    """Names along one axis that only one run has."""

    axis: str
    a: tuple[str, ...]
    b: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Run B against run A: every difference is B − A, rates in [0,1].

    Attributes:
        names: what the runs are called.
        studies: what the studies are called.
        fields: in which fields of the study, versions and machine the runs differ.
        only: names that only one of them has, by axis.
        unmatched: settings that only A, and only B, has.
        paired_tasks: tasks whose images are the same, compared image by image.
        settings: one row per setting in both (`SETTING_COLUMNS`). Paired: over the images that count in both, with
            McNemar's exact test, adjusted by Holm over all settings. Unpaired: each over its own.
        accuracy: clean accuracy of every model in both (`ACCURACY_COLUMNS`).
        targets: difference of each target's means over its settings (of relative ASR, of two ratios of means),
            white boxes left out, with a bootstrap interval: images are drawn within tasks, all attacks on one task
            together (`TARGET_COLUMNS`).
    """

    names: tuple[str, str]
    studies: tuple[str, str]
    fields: tuple[FieldDifference, ...]
    only: tuple[Only, ...]
    unmatched: tuple[int, int]
    paired_tasks: tuple[str, ...]
    settings: pd.DataFrame
    accuracy: pd.DataFrame
    targets: pd.DataFrame

    def __repr__(self) -> str:
        return f"Comparison({self.names[0]!r}, {self.names[1]!r}: {len(self.settings)} settings in both)"


def compare_runs(
    a: FinishedRun, b: FinishedRun, *, names: tuple[str, str] = ("A", "B"), seed: int = 0
) -> Comparison:
    """Compare what two runs have in common.

    A task's images are the same where the key of its stage is, that of its content. Seeds are matched by their
    number; where each run has one seed, these are matched whatever their numbers.

    Args:
        a: the one run, and
        b: the other.
        names: what to call them.
        seed: of the resampling.
    """
    seeds = _matched_seeds(a.study.seeds, b.study.seeds)
    same = _same_tasks(a, b)
    left, right = dict(matrices(a.outcomes)), dict(matrices(b.outcomes))
    rows: list[pd.DataFrame] = []
    means: dict[str, list[Any]] = {}
    matched = 0
    for number, ((task, seed_a), mine) in enumerate(left.items()):
        theirs = right.get((task, seeds.get(seed_a, -1)))
        if theirs is None:
            continue
        common = mine.settings.intersection(theirs.settings, sort=False)
        matched += len(common)
        for start in range(0, len(common), AT_ONCE):
            part = common[start : start + AT_ONCE]
            frame, drawn = _compared(mine, theirs, part, task in same, (seed, number))
            frame.insert(0, "task", task)
            frame.insert(1, "seed_a", seed_a)
            frame.insert(2, "seed_b", seeds[seed_a])
            rows.append(frame)
            _gather(means, frame, drawn)
    settings = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=SETTING_COLUMNS)
    settings["p_adjusted"] = holm(settings["p_value"].to_numpy(dtype=float))
    total = [sum(len(part.settings) for part in side.values()) for side in (left, right)]
    return Comparison(
        names=names,
        studies=(a.study.name, b.study.name),
        fields=differing_fields(a, b),
        only=tuple(only for only in _only(a, b) if only.a or only.b),
        unmatched=(total[0] - matched, total[1] - matched),
        paired_tasks=tuple(sorted(same & set(settings.loc[settings["paired"].astype(bool), "task"]))),
        settings=settings[SETTING_COLUMNS],
        accuracy=_accuracy(a, b, seeds, same),
        targets=_targets(settings, means),
    )


def _matched_seeds(a: Iterable[int], b: Iterable[int]) -> dict[int, int]:
    """The first run's seeds → the second's: by number, or the only ones with each other."""
    mine, theirs = list(a), list(b)
    if len(mine) == len(theirs) == 1:
        return {mine[0]: theirs[0]}
    return {number: number for number in mine if number in theirs}


def _same_tasks(a: FinishedRun, b: FinishedRun) -> set[str]:
    """The tasks whose content is the same in both: their stages have one key."""
    keys = [
        {stage["label"]: stage["key"] for stage in run.record["stages"] if stage["kind"] == "task"}
        for run in (a, b)
    ]
    return {task for task, key in keys[0].items() if keys[1].get(task) == key}


def _only(a: FinishedRun, b: FinishedRun) -> Iterable[Only]:
    """Per axis, the names that one of the runs has and the other lacks."""
    for axis in ("task", "attack", "surrogate", "target", "epsilon"):
        mine, theirs = (_names(run.outcomes, axis) for run in (a, b))
        yield Only(
            axis,
            tuple(name for name in mine if name not in theirs),
            tuple(name for name in theirs if name not in mine),
        )


def _names(outcomes: pd.DataFrame, axis: str) -> list[str]:
    found = outcomes[axis].unique().tolist()
    return [f"{255 * value:.4g}/255" for value in sorted(found)] if axis == "epsilon" else [str(x) for x in found]


def _compared(
    mine: Matrices, theirs: Matrices, settings: pd.MultiIndex, same_task: bool, seed: tuple[int, int]
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]]]:
    """The settings' rows, and ASRs of targets and surrogates under every resample: 2 runs × resamples × settings.

    The seed is one per task, so that tasks are drawn independently and all settings of one together.
    """
    shared = np.intersect1d(mine.images, theirs.images)
    # where most images are others, leaving them out would lose more than pairing gains
    paired = same_task and 2 * len(shared) >= min(len(mine.images), len(theirs.images))
    a = mine.of(settings, shared if paired else mine.images)
    b = theirs.of(settings, shared if paired else theirs.images)
    frame = settings.to_frame(index=False)
    frame["paired"] = paired
    if paired:
        counts = a.counts & b.counts
        a, b = (_restricted(side, counts) for side in (a, b))
        cells = [
            (x & y & counts).sum(axis=1)
            for x, y in (
                (a.target_fooled, b.target_fooled),
                (a.target_fooled, ~b.target_fooled),
                (~a.target_fooled, b.target_fooled),
                (~a.target_fooled, ~b.target_fooled),
            )
        ]
        found = paired_difference(*cells)
        frame["p_value"] = np.where(counts.any(axis=1), mcnemar(cells[1], cells[2]), np.nan)
        weights = [draws(len(shared), seed)] * 2
    else:
        found = unpaired_difference(
            a.target_fooled.sum(axis=1), a.counts.sum(axis=1), b.target_fooled.sum(axis=1), b.counts.sum(axis=1)
        )
        frame["p_value"] = np.nan
        weights = [draws(len(side.images), (*seed, offset)) for offset, side in enumerate((a, b))]
    for side, name in ((a, "a"), (b, "b")):
        fooled, counted, own = (
            part.sum(axis=1) for part in (side.target_fooled, side.counts, side.surrogate_fooled)
        )
        frame[f"images_{name}"] = counted
        frame[f"asr_{name}"] = np.where(counted > 0, fooled / np.maximum(counted, 1), np.nan)
        frame[f"surrogate_{name}"] = np.where(counted > 0, own / np.maximum(counted, 1), np.nan)
        frame[f"relative_{name}"] = np.where(own > 0, fooled / np.maximum(own, 1), np.nan)
    for name, values in zip(DIFFERENCE, found, strict=True):
        frame[f"asr_{name}"] = values
    before, after = resampled(a, weights[0]), resampled(b, weights[1])
    relative = after.relative - before.relative
    drawn = {"asr": np.stack([before.asr, after.asr]), "surrogate": np.stack([before.surrogate, after.surrogate])}
    known = frame["relative_a"].notna() & frame["relative_b"].notna()
    frame["relative_difference"] = frame["relative_b"] - frame["relative_a"]
    for name, end in zip(("low", "high"), ends(relative), strict=True):
        frame[f"relative_{name}"] = np.where(known, end, np.nan)
    return frame, drawn


def _restricted(side: Matrices, counts: NDArray[np.bool_]) -> Matrices:
    """One side with fewer images that count."""
    fooled = (part & counts for part in (side.target_fooled, side.surrogate_fooled))
    return type(side)(side.settings, side.images, side.labels, counts, *fooled)


def _gather(means: dict[str, list[Any]], frame: pd.DataFrame, drawn: dict[str, NDArray[np.float64]]) -> None:
    """Keep, per target, the sums over settings of both runs' ASRs and those of their surrogates, resample by
    resample: 2 (rates) × 2 (runs) × resamples; and how many there are."""
    for target in frame["target"].unique():
        chosen = (frame["target"] == target) & (frame["surrogate"] != target) & frame["asr_difference"].notna()
        here = chosen.to_numpy()
        if here.any():
            rates = np.stack([drawn["asr"][:, :, here], drawn["surrogate"][:, :, here]])
            known = ~np.isnan(rates).any(axis=(0, 1))  # of both runs alike, so that pairs stay paired
            sums = np.where(known, rates, 0).sum(axis=-1)
            means.setdefault(target, []).append((sums, known.sum(axis=-1)))


def _targets(settings: pd.DataFrame, means: dict[str, list[Any]]) -> pd.DataFrame:
    """Differences of means over settings; of relative ASR the difference of two ratios of means."""
    rows = []
    for target in settings["target"].unique():
        here = settings[(settings["target"] == target) & (settings["surrogate"] != target)]
        row: dict[str, Any] = {"target": target, "settings": len(here)}
        row |= {f"{rate}_{name}": np.nan for rate in ("asr", "relative") for name in DIFFERENCE}
        known = here.dropna(subset=["asr_difference"])
        row["asr_difference"] = known["asr_difference"].mean()
        own_a, own_b = known["surrogate_a"].sum(), known["surrogate_b"].sum()
        if own_a > 0 and own_b > 0:
            row["relative_difference"] = known["asr_b"].sum() / own_b - known["asr_a"].sum() / own_a
        if (parts := means.get(target)) is not None:
            sums, numbers = (np.sum([part[place] for part in parts], axis=0) for place in (0, 1))
            (asr_a, asr_b), (drawn_a, drawn_b) = sums
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn = {
                    "asr": (asr_b - asr_a) / numbers,
                    "relative": np.where((drawn_a > 0) & (drawn_b > 0), asr_b / drawn_b - asr_a / drawn_a, np.nan),
                }
            for rate, values in drawn.items():
                if not np.isnan(row[f"{rate}_difference"]):
                    low, high = ends(values[:, None])
                    row[f"{rate}_low"], row[f"{rate}_high"] = float(low[0]), float(high[0])
        if len(here):
            rows.append(row)
    return pd.DataFrame(rows, columns=TARGET_COLUMNS)


def _accuracy(a: FinishedRun, b: FinishedRun, seeds: dict[int, int], same: set[str]) -> pd.DataFrame:
    """Clean accuracy of every task, seed and model that both runs have; of the same images a paired difference."""
    rows = []
    keys = ["task", "seed", "model"]
    theirs: dict[Any, pd.DataFrame] = dict(iter(b.clean.groupby(keys, sort=False, observed=True)))
    name: Any
    for name, mine in a.clean.groupby(keys, sort=False, observed=True):
        task, seed, model = name
        other = theirs.get((task, seeds.get(seed, -1), model))
        if other is None:
            continue
        shared = np.intersect1d(mine["image"], other["image"])
        paired = task in same and 2 * len(shared) >= min(len(mine), len(other))
        right = [_right(frame, shared if paired else None) for frame in (mine, other)]
        found: Any
        if paired:
            cells = [np.array((x & y).sum()) for x in (right[0], ~right[0]) for y in (right[1], ~right[1])]
            found = paired_difference(*cells)
            p_value = float(mcnemar(cells[1], cells[2]))
        else:
            found = unpaired_difference(
                *(np.array(number) for side in right for number in (side.sum(), len(side)))
            )
            p_value = np.nan
        rows.append(
            (task, seed, seeds[seed], model, paired, *map(len, right), *(side.mean() for side in right),
             *(float(value) for value in found), p_value)
        )  # fmt: skip
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


def _right(frame: pd.DataFrame, images: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    said = frame if images is None else frame.set_index("image").loc[images]
    return (said["label"] == said["prediction"]).to_numpy()
