"""What was found out about a claim: facts, for which :mod:`mergerisk.report.fact_words` has words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mergerisk.statistics.claim_tables import Saturation
    from mergerisk.statistics.clusters import Interval
    from mergerisk.statistics.facts import Fact
    from mergerisk.statistics.pairs import ImagePairs
    from mergerisk.statistics.rank_tests import RankPicture

Answer = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Effect:
    """One effect size.

    Attributes:
        name: what it is.
        value: NaN where there is none.
        unit: ``points`` (percentage points), or nothing for a plain number.
    """

    name: Fact
    value: float
    unit: str = ""


@dataclass(frozen=True)
class Retest:
    """The same claim tested on another measure.

    Attributes:
        measure: ``asr``, ``asr_all`` and their like, or ``epsilon50``.
        test: the test's name.
        units: how many tasks were tested on.
        effect: its effect size.
        p_adjusted: corrected like the claim's own, over the same claims.
        answer: what the claim would be called by it.
    """

    measure: str
    test: str
    units: int
    effect: Effect
    p_adjusted: float
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class AttackerAnswer:
    """What the claim is called for one attacker.

    Attributes:
        attacker: a surrogate's name, ``worst attacker``, ``pooled``, or nothing where attackers do not matter.
        answer: supported, contradicted or inconclusive.
        leans: 1 if the figures lean to the claim, −1 if against it, 0 if to neither.
        test: the test's name; empty where the data cannot say anything, for the reason in ``missing``.
        missing: why not.
        unit: what the test takes as independent: ``tasks``, or of a single task its ``images``.
        units: how many of them.
        rests_on: how many settings, pairs or cells those are made of,
        of: which of these three.
        p_value: two-sided.
        p_adjusted: corrected over the claims judged for the same attacker,
        correction: how: ``holm`` or ``bh``.
        level: of the corrected test.
        effects: the first is the claim's own.
        intervals: of the first effect.
        figures: what was counted.
    """

    attacker: str
    answer: Answer
    leans: int
    test: str
    missing: Fact | None
    unit: str
    units: int
    rests_on: int
    of: str
    p_value: float
    p_adjusted: float
    correction: str
    level: float
    effects: tuple[Effect, ...]
    intervals: tuple[Interval, ...]
    figures: tuple[Fact, ...]

    @property
    def effect(self) -> Effect | None:
        """The claim's own effect size."""
        return self.effects[0] if self.effects else None

    @property
    def interval(self) -> Interval | None:
        """The interval that has its say; None if there is none."""
        return next((interval for interval in self.intervals if interval.known), None)


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict(AttackerAnswer):
    """A claim, judged.

    Test, effects, intervals and answer are those of the worst attacker, whom a defender faces; ``attackers`` has
    the others beside it. Where a study has one attacker, or a claim compares them, there are no others.

    Attributes:
        name: the claim's.
        kind: ``rate``, ``paired``, ``trend``, ``best`` or ``worst``.
        sentence: what was claimed.
        chosen: of the worst attacker, how often it is which surrogate, as shares.
        attackers: the same claim for each surrogate by itself, and for all pooled.
        compared: what was compared with what.
        measure: by what.
        left_out: settings, pairs or cells that lack a value.
        tasks: how many tasks the others are of.
        statistic: the test's.
        threshold: what the first effect is held against; NaN if nothing.
        saturation: of the settings that the claim rests on; None where nothing was tested.
        denominators: the claim tested with the other ASR, where that is known.
        epsilon50: the claim tested on ε50, by the order of values alone; None where that is not known.
        images: setting by setting, on the same images; None where it does not apply.
        detectable: the smallest effect that would have been found with a power of 80 %, by test and interval.
        ranks: mean ranks with the critical difference; of claims that rank methods.
        cautions: what limits the verdict.
    """

    name: str
    kind: str
    sentence: str
    chosen: tuple[tuple[str, float], ...]
    attackers: tuple[AttackerAnswer, ...]
    compared: Fact
    measure: str
    left_out: int
    tasks: int
    statistic: float
    threshold: float
    saturation: Saturation | None
    denominators: tuple[Retest, ...]
    epsilon50: Retest | None
    images: ImagePairs | None
    detectable: Effect | None
    ranks: RankPicture | None
    cautions: tuple[Fact, ...] = ()
