"""Intervals of aggregates: bootstrap over images, seeds and tasks where outcomes are known, else over tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from mergerisk.seeds import numpy_generator
from mergerisk.statistics.clusters import Interval
from mergerisk.statistics.facts import fact
from mergerisk.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from mergerisk.statistics.cell_means import Design
    from mergerisk.statistics.claim_tables import Tables
    from mergerisk.statistics.clusters import Over
    from mergerisk.statistics.facts import Fact

TasksAs = Literal["strata", "clusters"]

Scalar: TypeAlias = "Callable[[NDArray[np.float64], NDArray[np.intp]], NDArray[np.float64]]"
"""From a matrix, … × units × treatments, and which of a design's units it holds, to one number per unit; NaN where
there is none."""

_NONE = np.zeros(0, dtype=np.intp)

_CHUNK = 4_000_000
"""Resampled rates in memory at once."""


@dataclass(frozen=True, eq=False)
class Aggregate:
    """A mean over units of one number per unit.

    Attributes:
        design: from settings to units.
        measure: of the settings, without ``_all``; of relative ASR, whose cells are ratios of means, both parts.
        scalar: from a unit's cells to its number; smooth, as ranks are not: of ranks of noisy rates a bootstrap
            gives intervals that miss.
        over: a measure by whose sum over units the numbers' sum is divided, in place of their count: a ratio of
            two means.
    """

    design: Design
    measure: str
    scalar: Scalar
    over: str = ""


@dataclass(frozen=True, eq=False)
class TaskOutcomes:
    """What happened at every image of one task.

    Attributes:
        task: its name.
        settings: rows of the table of rates.
        images: indices, rising.
        present: images × settings: whether the image was attacked.
        counted: surrogate and target get it right when clean.
        wrong: the target gets it wrong under attack, whether it counts or not.
        surrogate_wrong: the surrogate does.
        measures: name of a diagnostic's measure → images × settings; NaN where there is no value.
    """

    task: str
    settings: NDArray[np.intp]
    images: NDArray[np.int64]
    present: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    surrogate_wrong: NDArray[np.bool_]
    measures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def kept(self, denominator: str) -> NDArray[np.bool_]:
        """The images that count, images × settings."""
        return self.counted if denominator == "both_correct" else self.present


def task_outcomes(tables: Tables) -> list[TaskOutcomes]:
    """Per task, by name; none where only rates are known."""
    outcomes, codes, happened = tables.outcomes, tables.setting_of, tables.happened
    if outcomes is None or codes is None or happened is None:
        return []
    columns = {
        "present": np.ones(len(codes), dtype=bool),
        "counted": happened.counts,
        "wrong": happened.target_wrong,
        "surrogate_wrong": happened.surrogate_wrong,
    }
    per_image = [name for name, per in tables.measured.items() if per == "image"]
    values_of = {name: outcomes[name].to_numpy(np.float64) for name in per_image}
    image = outcomes["image"].to_numpy()
    tasks = tables.rates["task"].to_numpy()
    names, task_of_setting = np.unique(tasks.astype(str), return_inverse=True)
    task_of = task_of_setting[codes]
    found = []
    for number, task in enumerate(names):
        here = np.flatnonzero(task_of == number)
        settings = np.flatnonzero(task_of_setting == number)
        row, images = pd.factorize(image[here], sort=True)
        place = np.zeros(len(tasks), dtype=np.intp)
        place[settings] = np.arange(len(settings))
        flat = row * len(settings) + place[codes[here]]
        arrays = {}
        for name, values in columns.items():
            cells = np.zeros(len(images) * len(settings), dtype=bool)
            cells[flat] = values[here]
            arrays[name] = cells.reshape(len(images), len(settings))
        measures = {}
        for name, numbers in values_of.items():
            measured = np.full(len(images) * len(settings), np.nan)
            measured[flat] = numbers[here]
            measures[name] = measured.reshape(len(images), len(settings))
        found.append(TaskOutcomes(str(task), settings, images, **arrays, measures=measures))
    return found


def bootstrap(
    aggregates: Sequence[Aggregate],
    outcomes: Sequence[TaskOutcomes],
    seeds: NDArray[np.int64],
    *,
    denominators: Sequence[str],
    resamples: int,
    seed: int,
    tasks: TasksAs,
) -> list[NDArray[np.float64]]:
    """Resampled values of aggregates, the same resamples for all of them.

    Within a task images are drawn with replacement, and an image's outcomes in every setting move together: so
    pairs stay paired across methods, surrogates, attacks, budgets and seeds. Several seeds are a level above,
    drawn with replacement for the whole study at once. Tasks are ``strata``, all of which every resample holds
    (other images of these tasks), or ``clusters``, drawn with replacement too (other tasks; a bootstrap of few
    clusters is too narrow: Cameron, Gelbach and Miller 2008). Clean accuracies, and orders made from them, stay as
    measured.

    The draws belong to (seed, task): they depend neither on the order of rows nor on the other tasks.

    Args:
        aggregates: of what.
        outcomes: per task.
        seeds: the study's seed of every row of the table of rates.
        denominators: of each aggregate ``both_correct`` or ``all``.
        resamples: how many.
        seed: of the drawing.
        tasks: ``strata`` or ``clusters``.

    Returns:
        Per aggregate ``resamples`` values; NaN where a resample has no unit with a value.
    """
    names = sorted(part.task for part in outcomes)
    different, seed_of = np.unique(seeds, return_inverse=True)
    times = _draws(resamples, len(different), seed, "seeds")
    drawn = (
        _draws(resamples, len(names), seed, "tasks") if tasks == "clusters" else np.ones((resamples, len(names)))
    )
    sums = np.zeros((len(aggregates), resamples))
    counts = np.zeros_like(sums)
    with one_thread():
        for position, part in enumerate(sorted(outcomes, key=lambda part: part.task)):
            pieces = [_of_task(aggregate, part) for aggregate in aggregates]
            used = np.unique(np.concatenate([_NONE, *(piece[0].rows for piece in pieces if piece)]))
            if not len(used):
                continue
            draws = _draws(resamples, len(part.images), seed, "images", part.task).astype(np.float32)
            arrays = {name: _arrays(part, name, used) for name in sorted(set(denominators))}
            diagnostics = {aggregate.measure for aggregate in aggregates} & part.measures.keys()
            sums_of = {name: _sums(part, name, used) for name in sorted(diagnostics)}
            step = max(1, _CHUNK // max(1, len(used) * 4))
            for start in range(0, resamples, step):
                span = slice(start, start + step)
                weights = times[span][:, seed_of[part.settings[used]]] if len(different) > 1 else None
                measured: dict[str, _Measured] = {}
                for which, (aggregate, piece) in enumerate(zip(aggregates, pieces, strict=True)):
                    if piece is None:
                        continue
                    name = denominators[which]
                    if name not in measured:
                        # Counts of images are whole numbers, exact in float32 up to 2²⁴, whatever the order.
                        trials, fooled, own = (draws[span] @ array for array in arrays[name])
                        of_diagnostics = {
                            measure: [draws[span] @ array for array in pair] for measure, pair in sums_of.items()
                        }
                        measured[name] = _Measured(trials, fooled, own, of_diagnostics, weights)
                    design, units = piece
                    here = replace(design, rows=np.searchsorted(used, design.rows))
                    numbers = aggregate.scalar(measured[name].matrix(aggregate.measure, here), units)
                    known = ~np.isnan(numbers)
                    times_drawn = drawn[span, position]
                    sums[which, span] += times_drawn * np.where(known, numbers, 0).sum(axis=-1)
                    if aggregate.over:
                        divisors = aggregate.scalar(measured[name].matrix(aggregate.over, here), units)
                        counts[which, span] += times_drawn * np.where(known, divisors, 0).sum(axis=-1)
                    else:
                        counts[which, span] += times_drawn * known.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return list(np.where(counts > 0, sums / counts, np.nan))


def _of_task(aggregate: Aggregate, part: TaskOutcomes) -> tuple[Design, NDArray[np.intp]] | None:
    """The design of one task's units, on that task's settings."""
    units = np.flatnonzero(aggregate.design.tasks == part.task)
    if not len(units):
        return None
    design = aggregate.design.select(units)
    return replace(design, rows=np.searchsorted(part.settings, design.rows)), units


def _arrays(part: TaskOutcomes, denominator: str, used: NDArray[np.intp]) -> list[NDArray[np.float32]]:
    """Images × settings that are used: whether an image counts, and fools target and surrogate."""
    kept = part.kept(denominator)[:, used]
    fooled, own = kept & part.wrong[:, used], kept & part.surrogate_wrong[:, used]
    return [array.astype(np.float32) for array in (kept, fooled, own)]


def _sums(part: TaskOutcomes, measure: str, used: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """Images × settings that are used: the measure where an image counts and has a value, and whether it does."""
    values = part.measures[measure][:, used]
    known = part.counted[:, used] & ~np.isnan(values)
    return [np.where(known, values, 0.0), known.astype(np.float64)]


class _Measured:
    """Measures of every setting of one task under some resamples, each worked out once: resamples × settings."""

    def __init__(
        self,
        trials: NDArray[np.float32],
        fooled: NDArray[np.float32],
        own: NDArray[np.float32],
        diagnostics: Mapping[str, Sequence[NDArray[np.float64]]],
        weights: NDArray[np.float64] | None,
    ) -> None:
        self._weights = weights
        self._ratios: dict[tuple[bytes, bytes], NDArray[np.float64]] = {}
        n, hits, own_hits = (counts.astype(np.float64) for counts in (trials, fooled, own))
        with np.errstate(invalid="ignore", divide="ignore"):
            self._values = {
                "asr": hits / n,
                "surrogate_asr": own_hits / n,
                "delta_asr": 100 * (hits - own_hits) / n,
                **{name: sums / counted for name, (sums, counted) in diagnostics.items()},
            }

    def matrix(self, measure: str, design: Design) -> NDArray[np.float64]:
        """Resamples × units × treatments."""
        if measure != "relative_asr":
            return design.matrix(self._values[measure], self._weights)
        key = design.rows.tobytes(), design.cells.tobytes()
        if key not in self._ratios:  # claims that rank the same methods share it
            asr, own = (self.matrix(name, design) for name in ("asr", "surrogate_asr"))
            with np.errstate(invalid="ignore", divide="ignore"):
                self._ratios[key] = np.where(own > 0, asr / own, np.nan)
        return self._ratios[key]


def _draws(resamples: int, items: int, seed: int, *names: str) -> NDArray[np.float64]:
    """How often each resample draws each item: resamples × items."""
    random = numpy_generator(seed, *names)
    return random.multinomial(items, np.full(items, 1 / items), resamples).astype(np.float64)


def basic_interval(
    value: float, resampled: NDArray[np.float64], *, confidence: float, over: Over, how: Fact
) -> Interval:
    """The basic bootstrap interval (Davison and Hinkley 1997, equation 5.6): ``value`` minus the middle of what
    resampling changed.

    Ratios of counts, as relative ASR is, come out too large on few images, and resampling makes them larger once
    more; an interval of the resampled values themselves would lie too high.

    Returns:
        NaN where fewer than half of the resamples have a value.
    """
    known = resampled[~np.isnan(resampled)]
    if 2 * len(known) < len(resampled) or not len(known):
        return Interval(np.nan, np.nan, confidence, over, how)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(2 * value - high), float(2 * value - low), confidence, over, how)


def bootstrap_p(value: float, resampled: NDArray[np.float64], inside: tuple[float, float]) -> float:
    """Two-sided p-value of a value against the ends of a stretch, by what resampling changed: the level at which
    :func:`basic_interval` would just touch (Davison and Hinkley 1997, section 4.4); never 0.

    Args:
        value: the estimate.
        resampled: its bootstrap values.
        inside: from where to where the truth is claimed to lie. With two finite ends and a value between them, the
            larger of two one-sided p-values (Schuirmann 1987).

    Returns:
        NaN where fewer than half of the resamples have a value.
    """
    known = resampled[~np.isnan(resampled)]
    if 2 * len(known) < len(resampled) or not len(known):
        return np.nan
    moved = known - value

    def beyond(end: float) -> float:
        """One-sided: chance that an estimate lies as far from a truth at ``end`` as this one does."""
        as_far = moved >= value - end if value >= end else moved <= value - end
        return float((1 + as_far.sum()) / (1 + len(known)))

    ends = [end for end in inside if np.isfinite(end)]
    if len(ends) == 2 and ends[0] < value < ends[1]:
        return max(beyond(end) for end in ends)
    return min(1.0, 2 * beyond(min(ends, key=lambda end: abs(value - end))))


class Resampler:
    """The bootstrap of one study.

    Args:
        tables: rates and outcomes.
        seed: of the drawing.
        confidence: of intervals.
        resamples: how many.
        tasks: ``strata`` or ``clusters``; see :func:`bootstrap`.
    """

    def __init__(self, tables: Tables, seed: int, confidence: float, resamples: int, tasks: TasksAs) -> None:
        self.outcomes = task_outcomes(tables)
        self._per_pair = {name for name, per in tables.measured.items() if per == "pair"}
        self._seeds = seeds_of(tables.rates)
        self._seed, self._confidence, self._resamples, self._tasks = seed, confidence, resamples, tasks

    def resample(self, aggregates: Sequence[Aggregate], denominators: Sequence[str]) -> list[NDArray[np.float64]]:
        """Bootstrap values of aggregates."""
        if not aggregates:
            return []
        return bootstrap(
            aggregates,
            self.outcomes,
            self._seeds,
            denominators=denominators,
            resamples=self._resamples,
            seed=self._seed,
            tasks=self._tasks,
        )

    def draws(self, aggregate: Aggregate | None) -> bool:
        """Whether another draw of images would change an aggregate: of what has one value per pair none does."""
        return bool(self.outcomes) and aggregate is not None and aggregate.measure not in self._per_pair

    def around(self, value: float, resampled: NDArray[np.float64], tasks: int = 2) -> Interval:
        """The interval of a bootstrapped value of some tasks."""
        one_level = self._tasks == "strata" or tasks < 2
        seeds = len(np.unique(self._seeds)) > 1
        how = fact("bootstrap", seeds=seeds, tasks=not one_level, resamples=self._resamples)
        over: Over = "images" if one_level else "tasks"
        return basic_interval(value, resampled, confidence=self._confidence, over=over, how=how)

    def images(self, tasks: Iterable[Any]) -> int:
        """How many images some tasks have."""
        wanted = {str(task) for task in tasks}
        return sum(len(part.images) for part in self.outcomes if part.task in wanted)


def seeds_of(rates: pd.DataFrame) -> NDArray[np.int64]:
    """The study's seed of every setting."""
    return rates["seed"].to_numpy(dtype=np.int64)
