"""Claims and data → verdicts, attacker by attacker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri

from mergerisk.errors import UserError
from mergerisk.statistics.attackers import POOLED, Attackers
from mergerisk.statistics.cell_means import is_diagnostic
from mergerisk.statistics.claim_tables import saturation
from mergerisk.statistics.claims import built_in, check_claims
from mergerisk.statistics.claims.on_epsilon50 import curve_table, on_epsilon50
from mergerisk.statistics.claims.testing import PERCENT_MEASURES, ClaimTest
from mergerisk.statistics.clusters import cluster_mean
from mergerisk.statistics.correction import correct
from mergerisk.statistics.facts import Fact, fact
from mergerisk.statistics.pairs import image_pairs, mcnemar_table
from mergerisk.statistics.resampling import Resampler, bootstrap_p, task_outcomes
from mergerisk.statistics.verdicts import AttackerAnswer, ClaimVerdict, Effect, Retest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from mergerisk.statistics.attackers import Attacker
    from mergerisk.statistics.claim_tables import Tables
    from mergerisk.statistics.claims import Claim
    from mergerisk.statistics.clusters import Interval
    from mergerisk.statistics.correction import PValueCorrection
    from mergerisk.statistics.pairs import ImagePairs
    from mergerisk.statistics.resampling import TasksAs
    from mergerisk.statistics.verdicts import Answer

_FEW_TASKS = 5
"""Below this many, intervals over tasks rest on too little to be trusted far."""


@dataclass(frozen=True, eq=False)
class _Tested:
    """One claim tested for one attacker on one measure.

    Attributes:
        attacker: whose.
        denominator: ``both_correct`` or ``all``.
        found: the test, its p-value filled in.
        intervals: of its first effect.
        adjusted: its p-value, corrected over the claims.
        answer: what the claim is called by it.
    """

    attacker: Attacker
    denominator: str
    found: ClaimTest
    intervals: tuple[Interval, ...] = ()
    adjusted: float = np.nan
    answer: Answer = "inconclusive"


@dataclass(frozen=True, eq=False)
class _Judging:
    """What all tests share."""

    correction: PValueCorrection
    level: float
    seed: int
    resamples: int
    tasks: TasksAs

    def resampled(self, given: Sequence[_Tested]) -> list[_Tested]:
        """The same with intervals of every first effect, by the bootstrap where there are outcomes, and over
        tasks; and with the p-values of those tested on images. Tests on the same tables share their resamples."""
        by_tables: dict[int, list[int]] = {}
        for i, part in enumerate(given):
            by_tables.setdefault(id(part.attacker.tables), []).append(i)
        done = list(given)
        for places in by_tables.values():
            resampler = Resampler(
                given[places[0]].attacker.tables, self.seed, 1 - self.level, self.resamples, self.tasks
            )
            wanted = [i for i in places if resampler.draws(given[i].found.aggregate)]
            taken = [i for i in wanted if given[i].found.minus is not None]
            aggregates = [given[i].found.aggregate for i in wanted] + [given[i].found.minus for i in taken]
            drawn = resampler.resample(
                [aggregate for aggregate in aggregates if aggregate is not None],
                [given[i].denominator for i in [*wanted, *taken]],
            )
            minus = dict(zip(taken, drawn[len(wanted) :], strict=True))
            values = {i: part - minus[i] if i in minus else part for i, part in zip(wanted, drawn, strict=False)}
            for i in places:
                done[i] = self._finished(given[i], resampler, values.get(i))
        return done

    def _finished(self, tested: _Tested, resampler: Resampler, drawn: NDArray[np.float64] | None) -> _Tested:
        found = tested.found
        if not found.test or not len(found.numbers):
            return tested
        intervals: list[Interval] = list(found.intervals)
        value = float(found.numbers.mean())
        if drawn is not None and found.aggregate is not None:
            percent = found.aggregate.measure in PERCENT_MEASURES and found.effects[0].unit
            drawn = value + tested.attacker.spread * ((100 if percent else 1) * drawn - value)
            intervals.append(resampler.around(value, drawn, tasks=len(set(found.unit_tasks))))
        across = cluster_mean(found.numbers, found.unit_tasks)
        over_tasks = across.interval(1 - self.level)
        if over_tasks.known:
            intervals.append(over_tasks)
        if found.unit == "images":
            found = self._by_images(found, resampler, value, drawn)
            if not found.test:
                return replace(tested, found=found)
        return replace(tested, found=found, intervals=tuple(intervals))

    def _by_images(
        self, found: ClaimTest, resampler: Resampler, value: float, drawn: NDArray[np.float64] | None
    ) -> ClaimTest:
        """The test of a single task: its images are drawn anew."""
        lacking = None
        p = np.nan
        if np.isfinite(found.p_value):  # a test that has its own way to one
            return replace(found, units=resampler.images(found.unit_tasks))
        if drawn is None or found.supported_in is None:
            lacking = fact("one_value_per_pair" if found.aggregate and resampler.outcomes else "rates_alone")
        else:
            p = bootstrap_p(value, drawn, found.supported_in)
            lacking = fact("too_few_images_count") if np.isnan(p) else None
        if lacking is not None:
            return replace(found, test="", missing=lacking, unit="", units=0, effects=(), figures=(), also=())
        return replace(found, p_value=min(1.0, found.tries * p), units=resampler.images(found.unit_tasks))

    def corrected(self, family: Sequence[_Tested]) -> list[_Tested]:
        """The same with p-values corrected as one family, and what follows."""
        adjusted = correct([tested.found.p_value for tested in family], self.correction).tolist()
        return [
            replace(
                tested, adjusted=p, answer=_answer(tested.found, p, _first_known(tested.intervals), self.level)
            )
            for tested, p in zip(family, adjusted, strict=True)
        ]


def judge_claims(
    tables: Tables,
    claims: Sequence[Claim] | None = None,
    *,
    correction: PValueCorrection = "holm",
    seed: int = 0,
    level: float = 0.05,
    resamples: int = 1000,
    tasks: TasksAs = "strata",
) -> tuple[ClaimVerdict, ...]:
    """Judge claims as one family.

    A claim is judged for every attacker it speaks of (see :mod:`mergerisk.statistics.attackers`), and its answer
    is that of the worst of them in every setting. It is supported if its corrected test is significant at
    ``level``, the data lean its way and the effect's interval lies there too; contradicted if both lie on the
    other side; inconclusive otherwise. What a test takes as independent is tasks, within which settings share
    images; of a single task it is the images. Claims that the data cannot speak to are inconclusive and do not
    count in the correction, which is over the claims' answers; those of each attacker are corrected over the
    claims likewise. Seeds of a study are averaged before testing: they are no further evidence about other tasks.

    Args:
        tables: rates, and outcomes where there are any.
        claims: what to judge; by default the built-in ones, see :func:`mergerisk.statistics.built_in`.
        correction: ``holm``, against any false finding, or ``bh`` (Benjamini and Hochberg), against too large a
            share of them.
        seed: of the bootstrap, and of the halves that worst attackers are chosen on.
        level: of the corrected tests; intervals have confidence 1 − level.
        resamples: of the bootstrap.
        tasks: what its intervals are about: ``strata``, other images of these tasks, or ``clusters``, other tasks.

    Raises:
        UserError: a claim names what the data do not hold, or an option is out of range.
    """
    check_options(seed, level, resamples)
    judging = _Judging(correction, level, seed, resamples, tasks)
    claims = built_in(tables) if claims is None else claims
    check_claims(claims, tables.rates, () if tables.diagnostics is None else tables.diagnostics.measures)
    tables = tables.measuring(name for claim in claims for name in claim.reads)
    jobs = _jobs(tables, claims, seed, level)
    resampled = judging.resampled([job for _, _, job in jobs])
    by_role: dict[str, dict[int, _Tested]] = {}
    for (role, i, _), tested in zip(jobs, resampled, strict=True):
        by_role.setdefault(role, {})[i] = tested
    families = {
        role: dict(zip(found, judging.corrected(list(found.values())), strict=True))
        for role, found in by_role.items()
    }
    return tuple(
        _verdict(judging, claim, {role: family[i] for role, family in families.items() if i in family})
        for i, claim in enumerate(claims)
    )


def _jobs(tables: Tables, claims: Sequence[Claim], seed: int, level: float) -> list[tuple[str, int, _Tested]]:
    """Everything to be tested: its part in the verdict, of which claim, and the test. Parts are ``main``, ``of``
    another attacker, ``other`` denominator and ``ε50``; each is corrected over the claims by itself."""
    known, attackers = tables.denominators, Attackers(tables, seed)
    curves: dict[tuple[int, str], pd.DataFrame | None] = {}
    jobs: list[tuple[str, int, _Tested]] = []
    for i, claim in enumerate(claims):
        name = _primary(claim, known)
        headline, *beside = attackers.of(claim)
        asked = [("main", headline, name), *((f"of {attacker.name}", attacker, name) for attacker in beside)]
        asked += [("other", headline, other) for other in known if other != name]
        for role, attacker, denominator in asked:
            found = _tested(attacker, denominator, level)
            jobs.append((role, i, _Tested(attacker, denominator, found)))
        key = (id(headline.tables), name)
        if key not in curves:
            curves[key] = curve_table(headline.tables.rates, name)
        on_curves = on_epsilon50(headline.claim, curves[key])
        if on_curves is not None:
            jobs.append(("ε50", i, _Tested(headline, name, on_curves)))
    return jobs


def _tested(attacker: Attacker, denominator: str, level: float) -> ClaimTest:
    """A claim's test, of what the data hold."""
    claim, tables = attacker.claim, attacker.tables
    for measure in claim.reads:
        if is_diagnostic(measure) and measure not in tables.rates:
            compared = fact("of_measures", measures=claim.reads)
            missing = fact("no_measure", measure=measure) if tables.measured else fact("no_diagnostics")
            return ClaimTest(compared, measure, missing=missing)
    return claim.tested(tables, denominator, level)


def check_options(seed: int, level: float, resamples: int) -> None:
    """Whether a bootstrap can be made.

    Raises:
        UserError: an option is out of range.
    """
    if not 0 < level < 1:
        raise UserError(f"level must lie between 0 and 1, got {level:g}")
    if resamples < 100:
        raise UserError(f"resamples must be 100 or more, got {resamples}")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")


def _primary(claim: Claim, known: tuple[str, ...]) -> str:
    """The denominator that a claim is about, or the one that is known."""
    wants_all = any(measure.endswith("_all") for measure in claim.measured)
    return "all" if wants_all and "all" in known else known[0]


def _answer(found: ClaimTest, p_adjusted: float, interval: Interval | None, level: float) -> Answer:
    if not p_adjusted < level or found.direction == 0 or not _agrees(found, interval):
        return "inconclusive"
    return "supported" if found.direction > 0 else "contradicted"


def _agrees(found: ClaimTest, interval: Interval | None) -> bool:
    """Whether an interval lies where the data lean."""
    if interval is None or found.supported_in is None:
        return True
    low, high = found.supported_in
    if found.direction > 0:
        return low < interval.low and interval.high < high
    return interval.high < low or high < interval.low


def _first_known(intervals: Sequence[Interval]) -> Interval | None:
    """The interval that has its say."""
    return next((interval for interval in intervals if interval.known), None)


def _retest(tested: _Tested | None) -> Retest | None:
    if tested is None or not tested.found.test:
        return None
    found = tested.found
    return Retest(found.measure, found.test, found.units, found.effects[0], tested.adjusted, tested.answer)


def _answer_of(tested: _Tested, judging: _Judging) -> dict[str, Any]:
    """The fields of :class:`AttackerAnswer`, which a verdict has too."""
    found = tested.found
    return {
        "attacker": tested.attacker.name,
        "answer": tested.answer,
        "leans": found.direction,
        "test": found.test,
        "missing": found.missing,
        "unit": found.unit,
        "units": found.units,
        "rests_on": found.rests_on,
        "of": found.of,
        "p_value": found.p_value,
        "p_adjusted": tested.adjusted,
        "correction": judging.correction,
        "level": judging.level,
        "effects": found.effects,
        "intervals": tested.intervals,
        "figures": found.figures,
    }


def _verdict(judging: _Judging, claim: Claim, by_role: dict[str, _Tested]) -> ClaimVerdict:
    main = by_role["main"]
    found, attacker = main.found, main.attacker
    used = attacker.tables.rates.iloc[np.unique(found.rows)]
    other = _retest(by_role.get("other"))
    verdict = ClaimVerdict(
        **_answer_of(main, judging),
        name=claim.name,
        kind=str(getattr(claim, "kind", "")),
        sentence=claim.sentence,
        chosen=attacker.chosen,
        attackers=tuple(
            AttackerAnswer(**_answer_of(tested, judging))
            for role, tested in by_role.items()
            if role.startswith("of ")
        ),
        compared=found.compared,
        measure=found.measure,
        left_out=found.left_out,
        tasks=len(set(found.unit_tasks)) if found.test else 0,
        statistic=found.statistic,
        threshold=found.threshold,
        saturation=saturation(used, main.denominator)
        if found.test and len(used) and not is_diagnostic(found.measure)
        else None,
        denominators=() if other is None or other.measure == found.measure else (other,),
        epsilon50=_retest(by_role.get("ε50")),
        images=_on_images(main, judging.level),
        detectable=_detectable(found, _first_known(main.intervals), judging.level),
        ranks=found.ranks,
    )
    return replace(verdict, cautions=tuple(_cautions(verdict, found)))


def _detectable(found: ClaimTest, interval: Interval | None, level: float) -> Effect | None:
    """What the test would have found, and the interval, which has to agree: the larger of the two, where they are
    in one unit."""
    smallest = found.detectable
    if smallest is None and interval is not None and found.unit == "images":
        smallest = replace(found.effects[0], value=0.0)
    if smallest is None or interval is None or found.ranks is not None:
        return smallest
    z = float(ndtri(1 - level / 2))
    by_interval = (interval.high - interval.low) / 2 * (z + float(ndtri(0.8))) / z
    return replace(smallest, value=max(smallest.value, by_interval))


def _on_images(tested: _Tested, level: float) -> ImagePairs | None:
    found, claim, tables = tested.found, tested.attacker.claim, tested.attacker.tables
    if tables.outcomes is None or not found.test or found.aggregate is None:  # none of clean accuracies
        return None
    design = claim.image_pairs(tables.rates)
    if design is None:
        return None
    return image_pairs(mcnemar_table(design, task_outcomes(tables), tested.denominator), level=level)


def _cautions(verdict: ClaimVerdict, found: ClaimTest) -> Iterator[Fact]:
    if not verdict.test:
        return
    yield from _disagreement(verdict)
    yield from found.also
    if verdict.left_out:
        yield fact("left_out", count=verdict.left_out, total=verdict.left_out + verdict.rests_on, of=verdict.of)
    again, ends = verdict.epsilon50, verdict.saturation
    if ends is not None and ends.mostly:
        yield fact("mostly_saturated", saturation=ends, on_epsilon50=None if again is None else again.answer)
    elif again is not None and again.answer != verdict.answer:
        yield fact("on_epsilon50", answer=again.answer)
    for other in verdict.denominators:
        if other.answer != verdict.answer:
            yield fact("other_asr", measure=other.measure, answer=other.answer)
    over = next((interval for interval in verdict.intervals if interval.over == "tasks" and interval.known), None)
    if verdict.answer != "inconclusive" and not (over is not None and _agrees(found, over)):
        yield fact("of_these_tasks_only")
    if verdict.tasks < _FEW_TASKS:
        yield fact("few_tasks", tasks=verdict.tasks)


def _disagreement(verdict: ClaimVerdict) -> Iterator[Fact]:
    """Where attackers lean to different sides, so that no average over them speaks of either."""
    ones = [part for part in verdict.attackers if part.attacker != POOLED]
    sides = {
        lean: tuple(
            (part.attacker, part.effect) for part in ones if part.leans == lean and part.effect is not None
        )
        for lean in (1, -1)
    }
    if sides[1] and sides[-1]:
        yield fact("attackers_disagree", claimed_way=sides[1], other_way=sides[-1])
