"""What a finished study hands to its report: plain data, no models and no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mergerisk.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray
    from pydantic import NonNegativeInt

    from mergerisk.report.prices import PriceList
    from mergerisk.statistics import Fact, Standings
    from mergerisk.statistics.explaining import Explanations, Moves
    from mergerisk.study.tables.catalogue import Kept
    from mergerisk.validation import NotNegative, Positive

SCHEMA_VERSION = 2
"""Version of `Summary` and of the JSON written from it. Raised when a field changes its name or meaning."""

REFERENCE_TARGETS = ("pretrained", "expert")
"""Targets that are ingredients: shown for comparison, never ranked among the merging methods."""

RESULT_COLUMNS = (
    "task", "attack", "surrogate", "target", "epsilon", "seed",
    "images", "images_both_correct", "images_both_fooled",
    "clean_accuracy_surrogate", "clean_accuracy_target", "asr", "asr_low", "asr_high",
    "asr_all", "asr_all_low", "asr_all_high", "surrogate_asr", "relative_asr", "relative_asr_low",
    "relative_asr_high", "delta_asr", "same_mistake", "mean_l2",
)  # fmt: skip
ACCURACY_COLUMNS = ("task", "model", "seed", "images", "accuracy", "low", "high")
EPSILON50_COLUMNS = ("task", "attack", "surrogate", "target", "seed", "epsilon50", "status", "low", "high")
FLAG_COLUMNS = (
    "task", "attack", "surrogate", "target", "seed", "epsilon_from", "epsilon_to",
    "asr_from", "asr_to", "p_value", "reason",
)  # fmt: skip

COLUMNS = {
    "results": RESULT_COLUMNS,
    "by_step": (*RESULT_COLUMNS, "steps"),
    "accuracy": ACCURACY_COLUMNS,
    "epsilon50": EPSILON50_COLUMNS,
    "flags": FLAG_COLUMNS,
}
"""The tables of every summary, and the columns that each has at least."""


@dataclass(frozen=True, eq=False)
class Example:
    """One strip of pictures: an image before and after an attack, and what two models say about it.

    Attributes:
        task: name of the task.
        attack: name of the attack.
        surrogate: the model the attack was crafted on.
        target: the model it was tried against.
        epsilon: the L∞ budget, in [0,1] pixel units.
        image: index of the image among those attacked.
        clean: H×W×3, uint8.
        adversarial: H×W×3, uint8, rounded.
        perturbation: H×W×3, float32, adversarial − clean in [0,1] units, not rounded.
        label: name of the true class.
        surrogate_says: class named by the surrogate under attack.
        target_says: class named by the target under attack.
    """

    task: str
    attack: str
    surrogate: str
    target: str
    epsilon: float
    image: int
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    perturbation: NDArray[np.float32]
    label: str
    surrogate_says: str
    target_says: str

    def __post_init__(self) -> None:
        name = f"example {self.task}/{self.attack}/{self.image}"
        shapes = {self.clean.shape, self.adversarial.shape, self.perturbation.shape}
        if len(shapes) != 1 or self.clean.ndim != 3 or self.clean.shape[2] != 3:
            raise UserError(f"{name}: the three pictures must share one H×W×3 shape, got {sorted(shapes)}")
        if self.clean.dtype != np.uint8 or self.adversarial.dtype != np.uint8:
            raise UserError(
                f"{name}: clean and adversarial must be uint8, got {self.clean.dtype} and {self.adversarial.dtype}"
            )


@dataclass(frozen=True, eq=False)
class GradientExample:
    """An image and the gradients of two models' losses on it.

    Attributes:
        task: name of the task.
        surrogate: whom attacks are made on.
        target: whom they are shown to.
        image: index of the image among those attacked.
        label: name of its class.
        alignment: the cosine of the two gradients.
        fooled_at: the smallest budget at which an attack made on the surrogate fools the target; None where none.
        clean: H × W × 3, uint8.
        surrogate_gradient: H × W × 3, over its largest entry.
        target_gradient: likewise.
    """

    task: str
    surrogate: str
    target: str
    image: int
    label: str
    alignment: float
    fooled_at: float | None
    clean: NDArray[np.uint8]
    surrogate_gradient: NDArray[np.float32]
    target_gradient: NDArray[np.float32]


@dataclass(frozen=True)
class StageTime:
    """How long one kind of stage took.

    Attributes:
        kind: name of the stage, e.g. ``craft``.
        count: how many of its kind the plan holds.
        cached: how many of those were found in the store.
        seconds: time that making all of them took, whenever that was, summed over workers.
    """

    kind: str
    count: NonNegativeInt
    cached: NonNegativeInt
    seconds: NotNegative


@dataclass(frozen=True)
class RunRecord:
    """What was run, on what, and how long it took.

    Attributes:
        study: its name.
        description: what it is about; may be empty.
        backbone: what the experts are fine-tuned from.
        tasks: names of the tasks.
        methods: the targets that are ranked.
        attacks: labels of the attacks.
        surrogates: labels of the models that attacks are made on.
        epsilons: budgets, in [0,1] pixel units.
        norm: what a budget bounds: any pixel's change, or the length of an image's.
        seeds: of everything that is drawn.
        images_per_task: how many are attacked, at most.
        settings: merging methods × tasks × attacks.
        calibration: what data-driven merging is given: ``held_out`` or ``test`` images.
        versions: of the libraries that decide figures.
        device: that computed.
        workers: processes, one thread each.
        git_revision: of a checkout of mergerisk; null of an installed one.
        started: when, in ISO 8601.
        seconds: in which some stage was computed, however often the run was stopped.
        stages: what each kind of stage took.
        counts: images that passed through models, by what for.
        caveats: what one must know to read the figures, in sentences.
        study_yaml: the resolved study file.
        notes: those of the caveats that the user's own models and images give rise to.
        changed: merges that something is changed about, which are never ranked; absent without.
        references: lines to hold merges against that are no merges, never ranked either; absent without.
    """

    study: str
    description: str
    backbone: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    attacks: tuple[str, ...]
    surrogates: tuple[str, ...]
    epsilons: tuple[Positive, ...]
    norm: Literal["linf", "l2"]
    seeds: tuple[NonNegativeInt, ...]
    images_per_task: NonNegativeInt
    settings: NonNegativeInt
    calibration: str
    versions: Mapping[str, str]
    device: str
    workers: NonNegativeInt
    git_revision: str | None
    started: str
    seconds: NotNegative
    stages: tuple[StageTime, ...]
    counts: Mapping[str, NonNegativeInt]
    caveats: tuple[str, ...]
    study_yaml: str
    notes: tuple[str, ...] = ()
    changed: Annotated[tuple[str, ...], Field(min_length=1)] = ()
    references: Annotated[tuple[str, ...], Field(min_length=1)] = ()


@dataclass(frozen=True, eq=False)
class Summary:
    """A finished study, as the report needs it.

    Rates are fractions in [0,1]; a rate is NaN where its denominator is 0. ``delta_asr`` is in percentage
    points. Targets are ``expert``, ``pretrained`` and one per merging method; a target may be the surrogate
    itself (white box).

    Attributes:
        schema_version: `SCHEMA_VERSION` at the time of writing.
        run: what was run.
        results: one row per task, attack, surrogate, target, epsilon and seed (`RESULT_COLUMNS`).
        by_step: the same and ``steps``, for every iterate that was kept; may be empty.
        accuracy: clean accuracy on whole test splits, with Wilson intervals (`ACCURACY_COLUMNS`).
        epsilon50: the ε at which the ASR crosses one half; ``status`` is ``measured``, ``below_smallest``,
            ``not_reached`` or ``no_images``, and the value NaN unless measured (`EPSILON50_COLUMNS`).
        flags: curves that fall as ε grows (`FLAG_COLUMNS`).
        examples: strips of pictures; may be empty.
        claims: what was tested, as plain dicts: ``sentence`` and ``verdict``, and what else there is of
            ``reason, test, effect, interval, p_value, p_adjusted, saturated``; see `report.claims`.
        doubts: why the figures say little of merging; empty where nothing does. See
            :func:`mergerisk.statistics.doubts`.
        further: the tables that the study asks for besides those of every run.
        standings: how the merging methods stand under the worst attacker, by rising budget; may be empty.
        explanations: what explains who is fooled; None where no diagnostics were asked for.
        moves: what moves when one thing about a merge is changed; None likewise, or where nothing was.
        prices: what defenses gain and cost; None where nothing is defended.
        gradients: of two models, on the most and the least aligned image; may be empty.
        beside_ingredients: the same with the base and the tasks' experts among them; may be empty.

    Raises:
        UserError: a frame lacks a column.
    """

    schema_version: int
    run: RunRecord
    results: pd.DataFrame
    by_step: pd.DataFrame
    accuracy: pd.DataFrame
    epsilon50: pd.DataFrame
    flags: pd.DataFrame
    examples: tuple[Example, ...]
    claims: tuple[Mapping[str, Any], ...] = ()
    standings: tuple[Standings, ...] = ()
    beside_ingredients: tuple[Standings, ...] = ()
    doubts: tuple[Fact, ...] = ()
    further: tuple[Kept, ...] = ()
    explanations: Explanations | None = None
    moves: Moves | None = None
    prices: PriceList | None = None
    gradients: tuple[GradientExample, ...] = ()

    def __post_init__(self) -> None:
        for name, columns in COLUMNS.items():
            missing = [column for column in columns if column not in getattr(self, name).columns]
            if missing:
                raise UserError(f"summary.{name} lacks columns {', '.join(missing)}; add them to the frame")
