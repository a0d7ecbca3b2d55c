"""What was found out about a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mergerisk.statistics.clusters import Interval
    from mergerisk.statistics.pairs import ImagePairs
    from mergerisk.statistics.rank_tests import RankPicture
    from mergerisk.statistics.table_set import Saturation

Answer = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Effect:
    """One effect size.

    Attributes:
        name: what it is.
        value: NaN where there is none.
        unit: ``points`` (percentage points), or nothing for a plain number.
    """

    name: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class Figure:
    """Something that was counted, in words."""

    name: str
    text: str


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


@dataclass(frozen=True)
class AttackerAnswer:
    """What the claim is called for one attacker.

    Attributes:
        attacker: a surrogate's name, or ``pooled``.
        answer: supported, contradicted or inconclusive.
        leans: 1 if the figures lean to the claim, −1 if against it, 0 if to neither.
        effect: its own.
        interval: the one that has its say; None if there is none.
        test: the test's name; empty where the data cannot say anything.
        units: how many are independent,
        unit: of what: ``tasks`` or ``images``.
        rests_on: how many settings, pairs or cells those are made of.
        p_value: two-sided.
        p_adjusted: corrected over the claims judged for the same attacker.
        reason: why, in one sentence.
        figures: what was counted.
    """

    attacker: str
    answer: Answer
    leans: int
    effect: Effect | None
    interval: Interval | None
    test: str
    units: int
    unit: str
    rests_on: int
    p_value: float
    p_adjusted: float
    reason: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Verdict:
    """A claim, judged.

    Test, effects, intervals and answer are those of the worst attacker, whom a defender faces; ``attackers`` has
    the others beside it. Where a study has one attacker, or a claim compares them, there are no others.

    Attributes:
        name: the claim's.
        kind: ``rate``, ``paired``, ``trend``, ``best`` or ``worst``.
        sentence: what was claimed.
        attacker: ``worst attacker``, the only surrogate there is, or nothing where attackers do not matter.
        chosen: of the worst attacker, how often it is which surrogate, as shares.
        attackers: the same claim for each surrogate by itself, and for all pooled.
        comparison: what was compared with what, in words.
        measure: by what.
        test: the test's name; empty where the data cannot say anything.
        unit: what the test takes as independent: ``tasks``, or of a single task its ``images``.
        units: how many of them.
        rests_on: how many settings, pairs or cells those are made of,
        of: which of these three.
        left_out: those that lack a value.
        tasks: how many tasks they are of.
        statistic: the test's.
        p_value: two-sided.
        p_adjusted: corrected over the family of claims.
        correction: how: ``holm`` or ``bh``.
        level: of the corrected test.
        effects: the first is the claim's own.
        threshold: what the first effect is held against; NaN if nothing.
        intervals: of the first effect.
        answer: supported, contradicted or inconclusive.
        reason: why, in one sentence.
        figures: what was counted.
        saturation: of the settings that the claim rests on; None where nothing was tested.
        denominators: the claim tested with the other ASR, where that is known.
        epsilon50: the claim tested on ε50, by the order of values alone; None where that is not known.
        images: setting by setting, on the same images; None where it does not apply.
        detectable: the smallest effect that would have been found with a power of 80 %, by test and interval.
        ranks: mean ranks with the critical difference; of claims that rank methods.
        cautions: what limits the verdict, a sentence each.
    """

    name: str
    kind: str
    sentence: str
    attacker: str
    chosen: tuple[tuple[str, float], ...]
    attackers: tuple[AttackerAnswer, ...]
    comparison: str
    measure: str
    test: str
    unit: str
    units: int
    rests_on: int
    of: str
    left_out: int
    tasks: int
    statistic: float
    p_value: float
    p_adjusted: float
    correction: str
    level: float
    effects: tuple[Effect, ...]
    threshold: float
    intervals: tuple[Interval, ...]
    answer: Answer
    reason: str
    figures: tuple[Figure, ...]
    saturation: Saturation | None
    denominators: tuple[Retest, ...]
    epsilon50: Retest | None
    images: ImagePairs | None
    detectable: Effect | None
    ranks: RankPicture | None
    cautions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What strict JSON can hold: NaN becomes None, infinities ``"inf"`` and ``"-inf"``."""
        found: dict[str, Any] = _plain(self)
        return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else "inf" if value > 0 else "-inf"
    return value
