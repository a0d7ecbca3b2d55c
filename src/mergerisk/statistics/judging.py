"""Claims and data → verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from mergerisk.errors import UserError
from mergerisk.statistics.claims import BUILT_IN, Claim, ExtremeClaim, PairedClaim, TrendClaim, check_claims
from mergerisk.statistics.comparing import (
    PERCENT_MEASURES,
    Comparison,
    column_of,
    compare,
    complete,
    difference,
    pair_design,
    ratio_numbers,
)
from mergerisk.statistics.correction import correct
from mergerisk.statistics.on_epsilon50 import compare_epsilon50, curve_table
from mergerisk.statistics.pairs import image_pairs, mcnemar_table
from mergerisk.statistics.resampling import Aggregate, basic_interval, bootstrap, cluster_mean, task_outcomes
from mergerisk.statistics.table_set import saturation
from mergerisk.statistics.verdicts import Effect, Retest, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.correction import Correction
    from mergerisk.statistics.pairs import ImagePairs
    from mergerisk.statistics.resampling import Interval, Over, TaskOutcomes, TasksAs
    from mergerisk.statistics.table_set import Tables
    from mergerisk.statistics.verdicts import Answer

_FEW_TASKS = 5
"""Below this many, intervals over tasks rest on too little to be trusted far."""


@dataclass(frozen=True, eq=False)
class _Family:
    """All claims tested on one measure, corrected together."""

    found: tuple[Comparison | None, ...]
    intervals: tuple[tuple[Interval, ...], ...]
    adjusted: tuple[float, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class _Judging:
    """What all families share."""

    tables: Tables
    outcomes: list[TaskOutcomes]
    correction: Correction
    seed: int
    level: float
    resamples: int
    tasks: TasksAs

    def families(self, given: Sequence[tuple[Sequence[Comparison | None], Sequence[str]]]) -> tuple[_Family, ...]:
        """Of each family the tests, corrected, with the intervals that have to agree; all resampled together.

        Args:
            given: per family what was found and by which denominator.
        """
        everything = [part for found, _ in given for part in found]
        intervals = self._intervals(everything, [name for _, names in given for name in names])
        starts = np.cumsum([0, *(len(found) for found, _ in given)])
        return tuple(
            self._family(found, intervals[start : start + len(found)])
            for (found, _), start in zip(given, starts, strict=False)
        )

    def _family(self, found: Sequence[Comparison | None], intervals: Sequence[tuple[Interval, ...]]) -> _Family:
        p_values = [np.nan if part is None else part.p_value for part in found]
        adjusted = correct(p_values, self.correction).tolist()
        answers = tuple(
            "inconclusive" if part is None else _answer(part, p, first_known(given), self.level)
            for part, p, given in zip(found, adjusted, intervals, strict=True)
        )
        return _Family(tuple(found), tuple(intervals), tuple(adjusted), answers)

    def _intervals(
        self, found: Sequence[Comparison | None], denominators: Sequence[str]
    ) -> list[tuple[Interval, ...]]:
        """Of every first effect: by the bootstrap where there are outcomes, and over tasks."""
        intervals: list[tuple[Interval, ...]] = [()] * len(found)
        wanted = [
            (i, part, part.aggregate)
            for i, part in enumerate(found)
            if self.outcomes and part is not None and part.aggregate is not None
        ]
        taken = [(i, part.minus) for i, part, _ in wanted if part.minus is not None]
        resampled = self.resample(
            [*(aggregate for _, _, aggregate in wanted), *(aggregate for _, aggregate in taken)],
            [denominators[i] for i in [*(i for i, _, _ in wanted), *(i for i, _ in taken)]],
        )
        minus = dict(zip((i for i, _ in taken), resampled[len(wanted) :], strict=True))
        for (i, part, aggregate), drawn in zip(wanted, resampled, strict=False):
            values = drawn - minus[i] if i in minus else drawn
            unit = 100 if aggregate.measure in PERCENT_MEASURES and part.effects[0].unit else 1
            intervals[i] = (self.around(float(part.numbers.mean()), unit * values),)
        for i, tested in enumerate(found):
            if tested is None or not len(tested.numbers):
                continue
            across = cluster_mean(tested.numbers, tested.unit_tasks)
            over_tasks = across.interval(1 - self.level, f"t over the means of {across.clusters} tasks")
            if over_tasks.known:
                intervals[i] = (*intervals[i], over_tasks)
        return intervals

    def resample(self, aggregates: Sequence[Aggregate], denominators: Sequence[str]) -> list[NDArray[np.float64]]:
        """Bootstrap values of aggregates."""
        if not aggregates:
            return []
        return bootstrap(
            aggregates,
            self.outcomes,
            self.tables.rates["seed"].to_numpy(dtype=np.int64),
            denominators=denominators,
            resamples=self.resamples,
            seed=self.seed,
            tasks=self.tasks,
        )

    def around(self, value: float, resampled: NDArray[np.float64]) -> Interval:
        """The interval of a bootstrapped value."""
        drawn = "images within tasks" if self.tasks == "strata" else "tasks, images within them"
        seeds = "seeds, " if self.tables.rates["seed"].nunique() > 1 else ""
        how = f"bootstrap, {seeds}{drawn}, {self.resamples} resamples"
        over: Over = "images" if self.tasks == "strata" else "tasks"
        return basic_interval(value, resampled, confidence=1 - self.level, over=over, how=how)


def judge(
    tables: Tables,
    claims: Sequence[Claim] = BUILT_IN,
    *,
    correction: Correction = "holm",
    seed: int = 0,
    level: float = 0.05,
    resamples: int = 1000,
    tasks: TasksAs = "strata",
) -> tuple[Verdict, ...]:
    """Judge claims as one family.

    A claim is supported if its corrected test is significant at ``level``, the data lean its way and the effect's
    interval lies there too; contradicted if both lie on the other side; inconclusive otherwise. The interval has
    its say because settings of one task share images, which rank tests over settings do not know: it is the
    bootstrap's where outcomes are known, else the one over tasks. Claims that the data cannot speak to are
    inconclusive and do not count in the correction. Seeds of a study are averaged before testing: they are no
    further evidence about other tasks or attacks.

    Args:
        tables: rates, and outcomes where there are any.
        claims: what to judge.
        correction: ``holm``, against any false finding, or ``bh`` (Benjamini and Hochberg), against too large a
            share of them.
        seed: of the bootstrap.
        level: of the corrected tests; intervals have confidence 1 − level.
        resamples: of the bootstrap.
        tasks: what its intervals are about: ``strata``, other images of these tasks, or ``clusters``, other tasks.

    Raises:
        UserError: a claim names what the data do not hold, or an option is out of range.
    """
    judging = _judging(tables, correction, seed, level, resamples, tasks)
    check_claims(claims, tables.rates)
    known = tables.denominators
    primary = [_primary(claim, known) for claim in claims]
    others = [next((other for other in known if other != name), None) for name in primary]
    curves = {name: curve_table(tables.rates, name) for name in known}
    main, elsewhere, on_curves = judging.families(
        [
            (
                [compare(claim, tables.rates, name, level) for claim, name in zip(claims, primary, strict=True)],
                primary,
            ),
            (
                [
                    None if name is None else compare(claim, tables.rates, name, level)
                    for claim, name in zip(claims, others, strict=True)
                ],
                [name or "" for name in others],
            ),
            (
                [compare_epsilon50(claim, curves[name]) for claim, name in zip(claims, primary, strict=True)],
                primary,
            ),
        ]
    )
    return tuple(
        _verdict(judging, claim, primary[i], main, elsewhere, on_curves, i) for i, claim in enumerate(claims)
    )


def _judging(
    tables: Tables, correction: Correction, seed: int, level: float, resamples: int, tasks: TasksAs
) -> _Judging:
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level:g}")
    if resamples < 100:
        raise UserError(f"resamples must be 100 or more, got {resamples}")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    return _Judging(tables, task_outcomes(tables), correction, seed, level, resamples, tasks)


def _primary(claim: Claim, known: tuple[str, ...]) -> str:
    """The denominator that a claim is about, or the one that is known."""
    measures = claim.measures if isinstance(claim, ExtremeClaim) else (getattr(claim, "measure", ""),)
    wants_all = any(measure.endswith("_all") for measure in measures)
    return "all" if wants_all and "all" in known else known[0]


def _answer(found: Comparison, p_adjusted: float, interval: Interval | None, level: float) -> Answer:
    if not p_adjusted < level or found.direction == 0 or not _agrees(found, interval):
        return "inconclusive"
    return "supported" if found.direction > 0 else "contradicted"


def _agrees(found: Comparison, interval: Interval | None) -> bool:
    """Whether an interval lies where the data lean."""
    if interval is None or found.supported_in is None:
        return True
    low, high = found.supported_in
    if found.direction > 0:
        return low < interval.low and interval.high < high
    return interval.high < low or high < interval.low


def first_known(intervals: Sequence[Interval]) -> Interval | None:
    """The interval that has its say."""
    return next((interval for interval in intervals if interval.known), None)


def _retest(family: _Family, i: int) -> Retest | None:
    found = family.found[i]
    if found is None or not found.test:
        return None
    return Retest(found.measure, found.test, found.units, found.effects[0], family.adjusted[i], family.answers[i])


def _verdict(
    judging: _Judging,
    claim: Claim,
    denominator: str,
    main: _Family,
    elsewhere: _Family,
    on_curves: _Family,
    i: int,
) -> Verdict:
    found, intervals, answer = main.found[i], main.intervals[i], main.answers[i]
    assert found is not None
    used = judging.tables.rates.iloc[np.unique(found.rows)]
    ends = saturation(used, denominator) if len(used) else None
    other = _retest(elsewhere, i)
    verdict = Verdict(
        name=claim.name,
        kind=str(getattr(claim, "kind", "")),
        sentence=claim.sentence,
        comparison=found.comparison,
        measure=found.measure,
        test=found.test,
        units=found.units,
        left_out=found.left_out,
        tasks=len(set(found.unit_tasks)),
        statistic=found.statistic,
        p_value=found.p_value,
        p_adjusted=main.adjusted[i],
        correction=judging.correction,
        level=judging.level,
        effects=found.effects,
        threshold=found.threshold,
        intervals=intervals,
        answer=answer,
        reason=_reason(claim, found, main.adjusted[i], answer, first_known(intervals), judging),
        figures=found.figures,
        saturation=ends,
        denominators=() if other is None or other.measure == found.measure else (other,),
        epsilon50=_retest(on_curves, i),
        images=_on_images(judging, claim, found, denominator),
        detectable=_detectable(found, first_known(intervals), judging.level),
        ranks=found.ranks,
        cautions=(),
    )
    return replace(verdict, cautions=tuple(_cautions(verdict, found)))


def _detectable(found: Comparison, interval: Interval | None, level: float) -> Effect | None:
    """What the test would have found, and the interval, which has to agree: the larger of the two, where they are
    in one unit."""
    smallest = found.detectable
    if smallest is None or interval is None or found.ranks is not None:
        return smallest
    z = float(ndtri(1 - level / 2))
    by_interval = (interval.high - interval.low) / 2 * (z + float(ndtri(0.8))) / z
    return replace(smallest, value=max(smallest.value, by_interval))


def _on_images(judging: _Judging, claim: Claim, found: Comparison, denominator: str) -> ImagePairs | None:
    if not judging.outcomes or not found.test or not isinstance(claim, PairedClaim):
        return None
    if found.aggregate is None:  # clean accuracies
        return None
    design = pair_design(claim, judging.tables.rates, seeds=True)
    return image_pairs(mcnemar_table(design, judging.outcomes, denominator), level=judging.level)


def _reason(
    claim: Claim, found: Comparison, p: float, answer: Answer, interval: Interval | None, judging: _Judging
) -> str:
    if not found.test:
        return f"Not tested: {found.missing}."
    by = "Holm" if judging.correction == "holm" else "Benjamini–Hochberg"
    ranks = isinstance(claim, TrendClaim | ExtremeClaim)
    units = "blocks" if ranks else "pairs" if isinstance(claim, PairedClaim) else "settings"
    lean = {1: "the claimed way", -1: "the other way", 0: "neither way"}[found.direction]
    effect = f"{found.effects[0].name} {show_effect(found.effects[0])}"
    start = f"{found.test} on {found.units} {units}: {show_p(p)} after {by}, {effect}, {lean}"
    if answer != "inconclusive" or found.direction == 0:
        return f"{start}."
    if not p < judging.level:
        return f"{start}, but no more than chance explains."
    assert interval is not None
    return f"{start}, but the interval over {interval.over} does not exclude the opposite."


def _cautions(verdict: Verdict, found: Comparison) -> Iterator[str]:
    if not verdict.test:
        return
    yield from found.also
    if verdict.left_out:
        yield f"{verdict.left_out} of {verdict.left_out + verdict.units} units lack a value and are left out"
    again, ends = verdict.epsilon50, verdict.saturation
    if ends is not None and ends.mostly:
        retested = "there is no ε50 to test it on" if again is None else f"on ε50 it is {again.answer}"
        yield (
            f"mostly saturated: {ends.saturated} of {ends.cells} settings at 99 % or more, "
            f"{ends.near_zero} near 0; {retested}"
        )
    elif again is not None and again.answer != verdict.answer:
        yield f"on ε50 it is {again.answer}"
    for other in verdict.denominators:
        if other.answer != verdict.answer:
            yield f"by {other.measure} it is {other.answer}"
    over = next((interval for interval in verdict.intervals if interval.over == "tasks" and interval.known), None)
    if verdict.answer != "inconclusive" and not (over is not None and _agrees(found, over)):
        yield "said of these tasks only: the interval over tasks does not exclude the opposite"
    if verdict.tasks < _FEW_TASKS:
        yield f"{verdict.tasks} task{'s' * (verdict.tasks != 1)}: little can be said of others"


def show_effect(effect: Effect) -> str:
    """``+24.05 points`` or ``0.912``."""
    if not np.isfinite(effect.value):
        return "unknown"
    return f"{effect.value:+.2f} points" if effect.unit else f"{effect.value:.3f}"


def show_p(p: float) -> str:
    """``p = 0.012``, ``p = 3.1e-07``, or ``p < 1e-12``."""
    if not np.isfinite(p):
        return "p unknown"
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.1e}" if p < 0.001 else f"p = {p:.3f}"


@dataclass(frozen=True, eq=False)
class TargetPair:
    """Two targets compared on the same images.

    Attributes:
        settings: McNemar's test per setting; see :func:`mergerisk.statistics.mcnemar_table`.
        summary: of it; None if no setting has both.
        differences: per measure the mean over settings of first − second (shares; ΔASR in points); of relative ASR
            the difference of two ratios of means.
        intervals: of each.
    """

    settings: pd.DataFrame
    summary: ImagePairs | None
    differences: dict[str, float]
    intervals: dict[str, Interval]


def compare_targets(
    tables: Tables,
    first: str,
    second: str,
    *,
    denominator: str = "both_correct",
    seed: int = 0,
    level: float = 0.05,
    resamples: int = 1000,
    tasks: TasksAs = "strata",
) -> TargetPair:
    """Two targets on the same images: exact McNemar per setting, and a paired bootstrap of mean differences.

    Args:
        tables: with outcomes.
        first: a target.
        second: another.
        denominator: ``both_correct`` or ``all``.
        seed: of the bootstrap.
        level: intervals have confidence 1 − level.
        resamples: of the bootstrap.
        tasks: ``strata`` or ``clusters``; see :func:`judge`.

    Raises:
        UserError: a target is not in the data, or there are no outcomes.
    """
    judging = _judging(tables, "holm", seed, level, resamples, tasks)
    if not judging.outcomes:
        raise UserError(f"{tables.source}: holds rates only; images are compared in a finished run's outcomes")
    one, other = {"target": (first,)}, {"target": (second,)}
    pair = PairedClaim(
        name="pair", sentence="They differ.", first=one, second=other, expect="higher", measure="asr"
    )
    check_claims([pair], tables.rates)
    laid_out = pair_design(pair, tables.rates)
    aggregates, means = [], {}
    for measure in ("asr", "delta_asr"):
        design, matrix = complete(laid_out, tables.rates, column_of(measure, denominator))
        if len(matrix):
            means[measure] = float(difference(matrix).mean())
            aggregates.append(Aggregate(design, measure, difference))
    ratio = ratio_numbers(laid_out, tables.rates, column_of("relative_asr", denominator))
    if ratio is not None:
        means["relative_asr"] = float(ratio.numbers.mean())
        aggregates += ratio.aggregates
    resampled = judging.resample(aggregates, [denominator] * len(aggregates))
    if ratio is not None:
        *resampled, one_drawn, other_drawn = resampled
        resampled.append(one_drawn - other_drawn)
    table = mcnemar_table(pair_design(pair, tables.rates, seeds=True), judging.outcomes, denominator)
    return TargetPair(
        table,
        image_pairs(table, level=level),
        means,
        {name: judging.around(means[name], values) for name, values in zip(means, resampled, strict=True)},
    )
