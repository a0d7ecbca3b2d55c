"""Claims on a mean of one number per setting or pair, held against a number; tested over tasks."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from mergerisk.statistics.claims.claim import Claim, Measure, Number, known_name
from mergerisk.statistics.claims.testing import (
    BOOTSTRAP,
    PERCENT_MEASURES,
    ClaimTest,
    bare,
    complete,
    effect,
    in_units,
    parts_of_ratio,
    task_means,
    treatment,
)
from mergerisk.statistics.clusters import cluster_mean
from mergerisk.statistics.facts import Fact, fact
from mergerisk.statistics.power import detectable_mean
from mergerisk.statistics.rank_tests import signed_rank
from mergerisk.statistics.resampling import Aggregate

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.cell_means import Design

    Scalar = Callable[[NDArray[np.float64], NDArray[np.intp]], NDArray[np.float64]]


def _test(value: object) -> object:
    if value == "signed_rank":
        raise ValueError(
            "signed_rank took settings on the same images for independent; leave test out for Student's t over "
            "tasks, or write signed_rank_over_tasks"
        )
    return known_name(str(value), ("tasks", "signed_rank_over_tasks"), "test")


Test = Annotated[str, BeforeValidator(_test)]


class NumberClaim(Claim):
    """Claims on a number: a mean or differences.

    Attributes:
        measure: of every setting.
        expect: ``higher`` or ``lower`` than ``against``, or the ``same``.
        against: the number, in the measure's unit.
        margin: what counts as no difference: ``higher`` is then higher than ``against`` − ``margin``, ``lower``
            lower than ``against`` + ``margin``, the ``same`` within it.
        test: with tasks as units: ``tasks``, Student's t, or ``signed_rank_over_tasks``, Wilcoxon's exact one.
    """

    measure: Measure = "relative_asr"
    expect: Literal["higher", "lower", "same"]
    against: Number
    margin: Annotated[Number, Field(ge=0)] = 0.0
    test: Test = "tasks"

    @model_validator(mode="after")
    def _equivalence_needs_a_margin(self) -> NumberClaim:
        if self.expect == "same" and self.margin == 0:
            raise ValueError("expect: same needs a margin above 0: nothing is shown to be exactly equal")
        return self

    @property
    def threshold(self) -> float:
        """What has to be passed."""
        return self.against + {"higher": -1, "lower": 1, "same": 0}[self.expect] * self.margin

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures it speaks of."""
        return (self.measure,)

    @abstractmethod
    def also_counted(
        self, numbers: NDArray[np.float64], design: Design, table: pd.DataFrame, denominator: str
    ) -> tuple[Fact, ...]:
        """What people state of such data besides how many settings or pairs are on the claim's side."""


def on_numbers(
    claim: NumberClaim,
    design: Design,
    table: pd.DataFrame,
    column: str,
    compared: Fact,
    denominator: str,
    level: float,
    scalar: Scalar,
) -> ClaimTest:
    """A claim on the mean of one number per setting or pair; of relative ASR on the ratio of two means."""
    everything = len(design.units)
    measure = bare(claim.measure)
    ratio, paired = measure == "relative_asr", claim.unit == "pairs"
    sample = _numbers(design, table, column, measure, scalar)
    if sample is None or not len(sample.design.units):
        missing = fact("no_pair_complete") if paired else fact("unknown_of_every_setting", measure=column)
        return ClaimTest(compared, column, missing=missing, left_out=everything, of=claim.unit)
    design, numbers, shown = sample.design, sample.numbers, sample.shown
    tasks = len(set(design.tasks))
    across = cluster_mean(sample.against(claim.threshold), design.tasks)
    shift = _shifts(sample, claim) if tasks > 1 else (np.nan, _lean(numbers, claim))
    mean, median = float(numbers.mean()), float(np.median(shown)) if len(shown) else np.nan
    also: list[Fact] = []
    if (mean - claim.threshold) * (median - claim.threshold) < 0:
        also.append(fact("mean_and_median"))
    figures = list(_counted(claim, shown, design, table, denominator))
    if ratio and len(shown):
        by_itself = float(shown.mean())
        figures.append(fact("mean_of_own", unit=claim.unit, value=by_itself))
        if abs(by_itself - mean) > max(_CARRIED * max(abs(by_itself), abs(mean)), _LITTLE):
            also.append(fact("carried_by_few", unit=claim.unit, value=by_itself))
    names = (fact("mean_difference" if paired else "mean"), fact("median"))
    if ratio:
        names = (
            (fact("ratio_difference"), fact("median_of_pairs"))
            if paired
            else (fact("ratio"), fact("median_of_settings"))
        )
    ends = {"higher": (claim.threshold, np.inf), "lower": (-np.inf, claim.threshold)}
    inside = ends.get(claim.expect, (claim.against - claim.margin, claim.against + claim.margin))
    unit = 100 if measure in PERCENT_MEASURES else 1
    by_ranks = claim.test == "signed_rank_over_tasks"
    statistic = (across.mean - claim.threshold) / across.error if across.error > 0 else np.nan
    detectable = detectable_mean(task_means(numbers, design.tasks), level=level)
    return ClaimTest(
        compared,
        column,
        BOOTSTRAP if tasks < 2 else "Wilcoxon signed-rank" if by_ranks else "t-test",
        unit="images" if tasks < 2 else "tasks",
        units=tasks,
        rests_on=len(numbers),
        of=claim.unit,
        left_out=everything - len(numbers),
        statistic=float(statistic) if tasks > 1 and not by_ranks else np.nan,
        p_value=shift[0],
        direction=shift[1],
        effects=(effect(names[0], mean, measure), effect(names[1], median, measure)),
        threshold=in_units(claim.threshold, measure),
        figures=tuple(figures),
        supported_in=(unit * inside[0], unit * inside[1]),
        numbers=numbers * unit,
        unit_tasks=design.tasks,
        aggregate=None if measure == "clean_accuracy" else sample.aggregates[0],
        minus=sample.aggregates[1] if sample.aggregates[1:] else None,
        rows=design.rows,
        detectable=effect(fact("ratio_shift" if ratio else "mean_difference"), detectable, measure)
        if tasks > 1
        else None,
        also=tuple(also),
    )


_CARRIED, _LITTLE = 0.1, 0.02
"""From this difference on, relative to the larger and by itself, a mean of ratios is said to differ much from a
ratio of means."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """One number per unit of a design.

    Attributes:
        design: of the units that have one.
        numbers: their mean is the effect.
        shown: what a unit is by itself.
        against: number → what is tested against it, unit by unit.
        aggregates: the effect for resampled rates; of two the first minus the second.
    """

    design: Design
    numbers: NDArray[np.float64]
    shown: NDArray[np.float64]
    against: Callable[[float], NDArray[np.float64]]
    aggregates: tuple[Aggregate, ...]


def _numbers(design: Design, table: pd.DataFrame, column: str, measure: str, scalar: Scalar) -> Numbers | None:
    if measure == "relative_asr":
        return ratio_numbers(design, table, column)
    design, matrix = complete(design, table, column)
    known = scalar(matrix, np.arange(len(matrix)))
    return Numbers(design, known, known, lambda _: known, (Aggregate(design, measure, scalar),))


def ratio_numbers(design: Design, table: pd.DataFrame, column: str) -> Numbers | None:
    """A ratio of means, or the difference of two, as a mean of numbers.

    With ASRs a of targets and s of surrogates, R + (a − R s) / mean s has the mean R = Σa / Σs, and its spread is
    that of the ratio (Cochran 1977, section 6.4). Whether R lies above a number θ is whether a − θ s lies above 0
    on average: θ + (a − θ s) / mean s is tested against θ; of two groups the difference of their a / mean s.

    Args:
        design: of one treatment or two.
        table: rates of settings.
        column: ``relative_asr`` or ``relative_asr_all``.

    Returns:
        None where the surrogates of a treatment are never fooled, or nothing is known.
    """
    asr, own = (design.matrix(values) for values in parts_of_ratio(table, column))
    kept = np.flatnonzero(~np.isnan(asr).any(axis=1))
    design, asr, own = design.select(kept), asr[kept], own[kept]
    if not (own.sum(axis=0) > 0).all():
        return None
    ratios, means = asr.sum(axis=0) / own.sum(axis=0), own.mean(axis=0)
    numbers = _less(ratios + (asr - ratios * own) / means)

    def against(number: float) -> NDArray[np.float64]:
        return _less(asr / means if len(means) > 1 else number + (asr - number * own) / means)

    fooled = (own > 0).all(axis=1)
    aggregates = tuple(
        Aggregate(design, "asr", partial(treatment, place), over="surrogate_asr") for place in range(len(means))
    )
    return Numbers(design, numbers, _less(asr[fooled] / own[fooled]), against, aggregates)


def _less(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The only treatment, or the first minus the second."""
    return matrix[:, 0] if matrix.shape[1] == 1 else matrix[:, 0] - matrix[:, 1]


def _shifts(sample: Numbers, claim: NumberClaim) -> tuple[float, int]:
    """Two-sided p-value over tasks, and which way the data lean."""

    def sides(threshold: float) -> tuple[float, float, float, float]:
        """One-sided p-values for above and below, the two-sided one, and what has the sign of the difference."""
        numbers, tasks = sample.against(threshold), sample.design.tasks
        across = cluster_mean(numbers, tasks)
        lean = round(across.mean - threshold, 12)
        if claim.test == "signed_rank_over_tasks":
            found = signed_rank(task_means(numbers, tasks) - threshold)
            return found.p_greater, found.p_less, found.p_value, lean
        if round(across.error, 12) == 0:
            # Tasks agree to the last digit: t would be infinite; flipping the signs of as many tasks is not.
            sure, unsure = 0.5**across.clusters, 1.0
            above = sure if lean > 0 else unsure
            below = sure if lean < 0 else unsure
        else:
            above = across.p_greater(threshold)
            below = 1 - above
        return above, below, min(1.0, 2 * min(above, below)), lean

    if claim.expect != "same":
        _, _, p, lean = sides(claim.threshold)
        return p, int(np.sign(lean)) * (1 if claim.expect == "higher" else -1)
    # Two one-sided tests (Schuirmann 1987): within the margin if above its lower end and below its upper one.
    over_low, under_low, _, lean_low = sides(claim.against - claim.margin)
    over_high, under_high, _, lean_high = sides(claim.against + claim.margin)
    if lean_low > 0 > lean_high:
        return max(over_low, under_high), 1
    return min(1.0, 2 * min(under_low, over_high)), -1


def _lean(numbers: NDArray[np.float64], claim: NumberClaim) -> int:
    """Which way the data lean."""
    mean = float(numbers.mean())
    if claim.expect == "same":
        return 1 if abs(mean - claim.against) < claim.margin else -1
    return int(np.sign(round(mean - claim.threshold, 12))) * (1 if claim.expect == "higher" else -1)


def _counted(
    claim: NumberClaim,
    numbers: NDArray[np.float64],
    design: Design,
    table: pd.DataFrame,
    denominator: str,
) -> tuple[Fact, ...]:
    """How many settings or pairs are where, and what else people state of such data; counts, not tests."""
    against = claim.against
    beyond = (numbers - against).round(12)
    low = claim.expect == "lower"
    inside = beyond <= 0 if low else beyond >= 0
    figures = (
        fact(
            "on_its_side",
            unit=claim.unit,
            below=low,
            against=against,
            measure=claim.measure,
            count=int(inside.sum()),
            of=len(numbers),
        ),
    )
    return (*figures, *claim.also_counted(numbers, design, table, denominator))
