"""What ``summary.json`` holds, as types: it is written as them, and its schema from them
(:mod:`mergerisk.report.document_schema`).

A field with a default may be absent from a document. A plain ``float`` may be NaN, written as null, or infinite,
written as ``"inf"`` or ``"-inf"``; one whose range is given is always a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from mergerisk.report.summary import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import FiniteFloat, GetCoreSchemaHandler, GetJsonSchemaHandler, NonNegativeInt
    from pydantic.json_schema import SkipJsonSchema
    from pydantic_core import CoreSchema

    from mergerisk.report.prices import PriceList
    from mergerisk.report.summary import RunRecord
    from mergerisk.statistics import Standings
    from mergerisk.statistics.explaining import Explanations, Moves
    from mergerisk.study.tables.declared import Column
    from mergerisk.validation import Share


@dataclass(frozen=True)
class WrittenAs:
    """Marks what is held as one type and has the form of another in a document."""

    form: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.form)


@dataclass(frozen=True)
class With:
    """Marks a table that has these columns, and may have more."""

    columns: tuple[str, ...]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        has = [{"contains": {"const": column}} for column in self.columns]
        return {**handler(schema), "properties": {"columns": {"allOf": has}}}


@dataclass(frozen=True)
class WrittenTable:
    """A table, such that ``pandas.DataFrame(**table)`` restores it.

    Attributes:
        columns: their names.
        data: its rows, a value per column; NaN is null, infinities are text.
    """

    columns: Annotated[tuple[str, ...], Field(json_schema_extra={"uniqueItems": True})]
    data: Sequence[Sequence[str | float | bool | None]]


@dataclass(frozen=True)
class WrittenExample:
    """Which image the report shows; its pictures are in ``examples.safetensors``.

    Attributes:
        task: name of the task.
        attack: name of the attack.
        surrogate: the model the attack was crafted on.
        target: the model it was tried against.
        epsilon: the budget.
        image: index of the image among those attacked.
        label: name of the true class.
        surrogate_says: class named by the surrogate under attack.
        target_says: class named by the target under attack.
    """

    task: str
    attack: str
    surrogate: str
    target: str
    epsilon: FiniteFloat
    image: NonNegativeInt
    label: str
    surrogate_says: str
    target_says: str


@dataclass(frozen=True)
class WrittenAttacker:
    """A claim for one attacker, or for all pooled.

    Attributes:
        attacker: whose attacks.
        verdict: what is found for them.
        effect: the first effect size, as text.
        interval: of the effect, as text.
        p_adjusted: corrected over the claims judged for the same attacker.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="allow")

    attacker: str
    verdict: str
    effect: str | None = None
    interval: str | None = None
    p_adjusted: Share | None = None


@dataclass(frozen=True)
class WrittenClaim:
    """What was tested; whoever tests it may say more.

    Attributes:
        sentence: what is claimed.
        verdict: the worst attacker's, where a claim speaks of several.
        name: of the claim.
        reason: why it is called so.
        compared: what was compared with what.
        attacker: whose attacks the verdict is about; null where attackers do not matter.
        effect: the first effect size; in a run that was judged, as text.
        interval: of the effect; in a run that was judged, as text.
        p_adjusted: corrected over all claims.
        tested_over: what the test takes as independent, and how many there are.
        cautions: what limits the verdict.
        attackers: the same claim for each attacker by itself, and for all pooled.
        detail: the whole verdict in numbers: test, effects, intervals, counts, the other denominator, ε50, ranks;
            see ``mergerisk.statistics.ClaimVerdict``.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="allow")

    sentence: Annotated[str, Field(min_length=1)]
    verdict: Annotated[str, Field(min_length=1)]
    name: str = ""
    reason: str | None = None
    compared: str | None = None
    attacker: str | None = None
    effect: Any = None
    interval: Any = None
    p_adjusted: Share | None = None
    tested_over: str = ""
    cautions: tuple[str, ...] = ()
    attackers: tuple[WrittenAttacker, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenDoubt:
    """Why the figures say little of merging.

    Attributes:
        kind: the reason.
        sentence: in words.
    """

    kind: Annotated[str, WrittenAs(Literal["chance", "no_better", "same", "few_images", "few_steps"])]
    sentence: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class WrittenDeclaration:
    """What a further table is; its rows are in a file of their own, of which there may be many thousands.

    Attributes:
        one_row_per: what a row is about.
        columns: in their order.
        may_be_empty: whether a run may leave it without rows.
        file: of the run's folder.
        rows: how many it has.
    """

    one_row_per: str
    columns: tuple[Column, ...]
    may_be_empty: bool
    file: str
    rows: NonNegativeInt


@dataclass(frozen=True)
class Document:
    """What ``summary.json`` holds. Rates are fractions in [0,1], ``delta_asr`` is in percentage points, budgets
    are in [0,1] pixel units. See docs/summary_schema.md.

    Attributes:
        schema_version: raised when a field changes its name or meaning; fields may be added without.
        run: what was run, on what, and how long it took.
        results: one row per task, attack, surrogate, target, budget and seed.
        by_step: the same for every iterate that was kept; may be empty.
        accuracy: clean accuracy on whole test splits, with Wilson intervals.
        epsilon50: the budget that fools half of the images, per curve; ``status`` is ``measured``,
            ``below_smallest``, ``not_reached`` or ``no_images``.
        flags: curves that fall as the budget grows.
        examples: which images the report shows.
        claims: what was tested.
        doubts: why the figures say little of merging; empty where nothing does.
        standings: per budget, rising: how the merging methods stand under the worst attacker.
        beside_ingredients: the same with the base and the tasks' experts among the methods.
        further: tables that the study asks for besides those of every run, by name; absent without.
        explanations: what explains who is fooled (causes.md); a figure that cannot be said is an object with
            ``why`` and ``detail``; absent where the study asks for no causes.
        moves: what moves when one thing about a merge is changed; absent where nothing was.
        prices: what defenses gain against every attacker, what they cost, and whether they may be said to defend
            (defenses.md); absent where nothing is defended.
    """

    schema_version: int
    run: RunRecord
    results: Annotated[WrittenTable, With(COLUMNS["results"])]
    by_step: Annotated[WrittenTable, With(COLUMNS["by_step"])]
    accuracy: Annotated[WrittenTable, With(COLUMNS["accuracy"])]
    epsilon50: Annotated[WrittenTable, With(COLUMNS["epsilon50"])]
    flags: Annotated[WrittenTable, With(COLUMNS["flags"])]
    examples: tuple[WrittenExample, ...]
    claims: Annotated[tuple[Mapping[str, Any], ...], WrittenAs(tuple[WrittenClaim, ...])]
    doubts: tuple[WrittenDoubt, ...]
    standings: tuple[Standings, ...]
    beside_ingredients: tuple[Standings, ...] = ()
    further: Mapping[str, WrittenDeclaration] | SkipJsonSchema[None] = None
    explanations: Explanations | SkipJsonSchema[None] = None
    moves: Moves | SkipJsonSchema[None] = None
    prices: PriceList | SkipJsonSchema[None] = None
