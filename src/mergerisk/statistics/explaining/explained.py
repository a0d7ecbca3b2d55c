"""What explanations hold: facts, no sentences."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 (what is kept of these is read back by their fields' types)
from dataclasses import dataclass
from typing import Literal

from pydantic import FiniteFloat, NonNegativeInt  # noqa: TC002 (likewise)

Answer = Literal["yes", "no", "untold"]
"""Whether a diagnostic goes with an outcome: a corrected test says so, none does, or it cannot be told."""

Level = Literal["methods", "same_image", "images"]
"""``methods``: methods whose images have larger values on average fall at another budget. ``same_image``: on one
image, methods with larger values than they have on average are fooled more, or less, often, clean accuracy held
fixed. ``images``: of one method's images, those with larger values are."""

Why = Literal["few_methods", "few_images", "all_missing", "by_image", "by_method", "constant", "alike", "refused"]
"""Why something cannot be said: too few methods or images to compare; a diagnostic that is missing wherever it is
looked for; is the same for all methods of an image; has one value per method; is the same everywhere; images that
all methods treat alike; a fit that does not settle."""


@dataclass(frozen=True)
class Unsaid:
    """Why there is no figure.

    Attributes:
        why: the reason.
        detail: what else there is to say of it: a number, a message; may be empty.
    """

    why: Why
    detail: str = ""


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ inside blocks, their mean; see :func:`mergerisk.statistics.explaining.rank_correlations`.

    Attributes:
        value: in [−1, 1].
        low: of its 95 % interval, over images in tasks.
        high: likewise.
        p: two-sided.
        p_holm: corrected for the measures.
        blocks: it is the mean of.
    """

    value: float
    low: float
    high: float
    p: float
    p_holm: float
    blocks: int


@dataclass(frozen=True)
class Odds:
    """An odds ratio of being fooled, per standard deviation of the measure's scores between methods on one image,
    each less the method's mean; see
    :func:`mergerisk.statistics.explaining.matched_logit`.

    Attributes:
        ratio: with clean accuracy held fixed.
        low: of its 95 % interval, over images.
        high: likewise.
        p: two-sided.
        p_holm: corrected for the measures.
        sets: images under one attack and budget that fool some methods and not others.
        together: the ratio in one model with all measures; NaN where it has none.
        inflation: of its variance by the others in that model; NaN likewise.
        closest: the other measure that goes with it most closely on one image; empty without one.
        closeness: their correlation.
    """

    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    sets: int
    together: float
    inflation: float
    closest: str
    closeness: float


@dataclass(frozen=True)
class Predicted:
    """How well a measure predicts a method that it was not fitted on; see
    :func:`mergerisk.statistics.explaining.leave_one_target_out`.

    Attributes:
        auc: inside blocks, ½ for no better than a coin.
        low: of its 95 % interval, over images in tasks.
        high: likewise.
        p: how often shuffled outcomes are predicted as well; NaN where that was not tried.
        null: the 95th percentile of their areas; likewise.
        r2: of the left-out method's rates; below 0 where the other methods' mean predicts better.
    """

    auc: float
    low: float
    high: float
    p: float
    null: float
    r2: float


@dataclass(frozen=True)
class Mediated:
    """Of the difference in ASR between two methods, the share that disappears once the measure is known; see
    :func:`mergerisk.statistics.explaining.mediated_share`.

    Attributes:
        safest: the method fooled least often.
        riskiest: the one fooled most often.
        total: the difference of their ASRs on the same images.
        share: of it, that disappears; NaN where the difference cannot be told from 0.
        low: of its 95 % interval, over images in tasks.
        high: likewise.
    """

    safest: str
    riskiest: str
    total: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A task's images on one method.

    Attributes:
        surrogate: whom the attacks are made on.
        task: the task.
        target: the method.
        value: mean of the measure, without extremes.
        epsilon50: median over attacks of the budget that fools half; 0 below the smallest budget, ∞ where none
            does.
        images: that count.
    """

    surrogate: str
    task: str
    target: str
    value: FiniteFloat
    epsilon50: float
    images: NonNegativeInt


@dataclass(frozen=True)
class Explained:
    """One measure held against one attacker's outcomes.

    Attributes:
        measure: the column of its diagnostic.
        per: whether it has a value per image or per pair of models.
        part: of pairs, of which part.
        missing: reason → how many values.
        epsilon50: with ε50, between methods: below 0 where methods with larger values fall at smaller budgets.
        asr: with ASR, between methods.
        images: with being fooled, among one method's images.
        matched: on the same image.
        predicted: a method that was left out.
        mediated: between the safest and the riskiest method.
        answers: whether it goes with what happens, by level.
    """

    measure: str
    per: Literal["image", "pair"]
    part: str
    missing: Mapping[str, NonNegativeInt]
    epsilon50: Correlation | Unsaid
    asr: Correlation | Unsaid
    images: Correlation | Unsaid
    matched: Odds | Unsaid
    predicted: Predicted | Unsaid
    mediated: Mediated | Unsaid
    answers: Mapping[Level, Answer]

    @property
    def explains(self) -> bool:
        """Whether it goes with what happens at any level."""
        return "yes" in self.answers.values()

    @property
    def strength(self) -> float:
        """The size of its correlation with ε50 between methods, or else with being fooled among images; 0 where
        neither is known."""
        found = next((c for c in (self.epsilon50, self.images) if isinstance(c, Correlation)), None)
        return 0.0 if found is None else abs(found.value)


@dataclass(frozen=True)
class Explanation:
    """What explains who is fooled by one attacker.

    Attributes:
        attacker: the surrogate, or ``worst``.
        chosen: of the worst, method → its surrogate.
        methods: that are compared.
        images: of all tasks, that count for any of them.
        together: how well all measures with values per image predict a left-out method.
        measures: strongest first: those that a test supports, then by strength.
    """

    attacker: str
    chosen: Mapping[str, str]
    methods: tuple[str, ...]
    images: NonNegativeInt
    together: Predicted | Unsaid
    measures: tuple[Explained, ...]


@dataclass(frozen=True)
class NullLine:
    """What is shown beside a measure for comparison: it should explain nothing there, or have small values.

    Attributes:
        kind: an expert of another task, a model of another architecture, noise of the same ε.
        surrogate: of the study; None where it has none.
    """

    kind: Literal["unrelated", "architecture", "noise"]
    surrogate: str | None


@dataclass(frozen=True)
class Explanations:
    """What explains who is fooled, attacker by attacker.

    Attributes:
        level: of the tests.
        worst: under each method's worst attacker.
        attackers: each surrogate by itself, but those of null lines.
        nulls: which null lines there are.
        points: measure → what a picture of it shows, of every surrogate.
    """

    level: FiniteFloat
    worst: Explanation
    attackers: tuple[Explanation, ...]
    nulls: tuple[NullLine, ...]
    points: Mapping[str, tuple[Point, ...]]
