"""Claims as objects: a sentence, the comparison it makes, what bears it out; built in, or from a YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from mergerisk.errors import Faults, UserError, did_you_mean
from mergerisk.statistics.designs import MEASURES
from mergerisk.validation import findings, parse_fraction
from mergerisk.yaml_files import read_mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

ROLES = ("expert", "pretrained", "merge", "other")
TARGET_COLUMNS = ("target", "target_role", "method", "correction")
SURROGATE_COLUMNS = ("surrogate", "surrogate_role")
FILTER_COLUMNS = ("task", "attack", *SURROGATE_COLUMNS, *TARGET_COLUMNS, "epsilon")
"""Columns that a claim may choose settings by; see :class:`mergerisk.statistics.Tables`."""


def _known(name: str, known: Iterable[str], what: str) -> str:
    names = list(known)
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, names)}")
    return name


def _filters(value: object) -> object:
    """``{surrogate: expert, epsilon: [2/255]}`` as column → values."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of columns to a value or a list of values")  # noqa: TRY004
    found: dict[str, tuple[str | float, ...]] = {}
    for column, given in value.items():
        _known(str(column), FILTER_COLUMNS, "column")
        values = list(given) if isinstance(given, list | tuple) else [given]
        if not values:
            raise ValueError(f"{column}: names no value")
        if column == "epsilon":
            found[column] = tuple(parse_fraction(str(item)) for item in values)
            continue
        texts = tuple(str(item) for item in values)
        if column.endswith("_role"):
            for text in texts:
                _known(text, ROLES, column)
        found[str(column)] = texts
    return found


Filters = Annotated[dict[str, tuple[str | float, ...]], BeforeValidator(_filters)]


def _measure(value: object) -> object:
    endings = [*MEASURES, *(f"{name}_all" for name in MEASURES if name != "clean_accuracy")]
    return _known(str(value), endings, "measure")


Measure = Annotated[str, BeforeValidator(_measure)]
"""``asr``, ``relative_asr``, ``delta_asr`` (percentage points) or ``surrogate_asr``, among the images that
surrogate and target get right when clean, where that is known; the same with ``_all``, of all images;
``clean_accuracy``. Of several settings together ``relative_asr`` is a ratio of means: mean ASR of targets over
mean ASR of surrogates."""


def _test(value: object) -> object:
    if value == "signed_rank":
        raise ValueError(
            "signed_rank took settings on the same images for independent; leave test out for Student's t over "
            "tasks, or write signed_rank_over_tasks"
        )
    return _known(str(value), ("tasks", "signed_rank_over_tasks"), "test")


Test = Annotated[str, BeforeValidator(_test)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Model):
    """What all claims share.

    Attributes:
        name: for results.
        sentence: what is claimed.
        where: the settings it is about. Unless a filter of the claim names ``target`` or ``target_role``, only
            merges count as targets, and of those not the surrogate itself (white box); unless one names
            ``surrogate`` or ``surrogate_role``, only models that are no merge count as surrogates.
    """

    name: Annotated[str, Field(min_length=1)]
    sentence: Annotated[str, Field(min_length=1)]
    where: Filters = Field(default_factory=dict)

    @property
    def filters(self) -> tuple[Mapping[str, tuple[str | float, ...]], ...]:
        """All of its filters."""
        return (self.where,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return ()


class _Compared(Claim):
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
    against: float
    margin: NonNegativeFloat = 0.0
    test: Test = "tasks"

    @model_validator(mode="after")
    def _equivalence_needs_a_margin(self) -> _Compared:
        if self.expect == "same" and self.margin == 0:
            raise ValueError("expect: same needs a margin above 0: nothing is shown to be exactly equal")
        return self

    @property
    def threshold(self) -> float:
        """What has to be passed."""
        return self.against + {"higher": -1, "lower": 1, "same": 0}[self.expect] * self.margin


class RateClaim(_Compared):
    """A mean over settings against a number: ``{kind: rate, measure: asr, expect: higher, against: 0.5}``."""

    kind: Literal["rate"] = "rate"


class PairedClaim(_Compared):
    """Two groups of settings, pair by pair.

    Attributes:
        first: filters of the first group.
        second: of the second.
        pair_by: columns that both settings of a pair share; by default all that no filter of either group names.
            Several settings of a group in one pair are averaged.
        against: the difference, first − second, in the measure's unit.
    """

    kind: Literal["paired"] = "paired"
    first: Filters
    second: Filters
    pair_by: tuple[str, ...] = ()
    against: float = 0.0

    @field_validator("pair_by")
    @classmethod
    def _columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return _with_task(columns, "pair_by") if columns else ()

    @model_validator(mode="after")
    def _within_tasks(self) -> PairedClaim:
        if "task" in self.first or "task" in self.second:
            raise ValueError("first and second: pairs are of one task; choose tasks by where")
        return self

    @property
    def filters(self) -> tuple[Mapping[str, tuple[str | float, ...]], ...]:
        """All of its filters."""
        return (self.where, self.first, self.second)

    @property
    def pairing(self) -> tuple[str, ...]:
        """``pair_by``, worked out."""
        if self.pair_by:
            return self.pair_by
        named = {*self.first, *self.second}
        columns = ["task"]
        columns += [name for name in ("attack", "epsilon") if name not in named]
        if not named & set(SURROGATE_COLUMNS):
            columns.append("surrogate")
        if not named & set(TARGET_COLUMNS):
            columns.append("target")
        elif named & {"method", "correction"} and "target" not in named:
            columns += [name for name in ("method", "correction") if name not in named]
        return tuple(columns)


class _Ranked(Claim):
    """Claims on the order of methods, ranked task by task."""

    @model_validator(mode="before")
    @classmethod
    def _by_task(cls, given: object) -> object:
        if isinstance(given, dict) and "block_by" in given:
            raise ValueError(
                "block_by: methods are ranked once per task, which is what is independent; leave it out"
            )
        return given


class TrendClaim(_Ranked):
    """Methods along an order: stated (``order: [ties, adamerging]``) or measured (``by: clean_accuracy``).

    Attributes:
        measure: that rises or falls.
        expect: which.
        order: the targets, first to last; with ``by`` all that there are.
        by: measure that orders them, task by task.
    """

    kind: Literal["trend"] = "trend"
    measure: Measure = "relative_asr"
    expect: Literal["rising", "falling"] = "rising"
    order: tuple[str, ...] = ()
    by: Measure | None = None

    @model_validator(mode="after")
    def _one_order(self) -> TrendClaim:
        if bool(self.order) == bool(self.by):
            raise ValueError("give either order, a list of targets, or by, a measure that orders them")
        if self.order and len(set(self.order)) < max(2, len(self.order)):
            raise ValueError("order: needs at least two targets, none twice")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return self.order


class ExtremeClaim(_Ranked):
    """One method against all others.

    Attributes:
        kind: ``best`` or ``worst``: the worst is the one with the highest ASR (of any kind), or the lowest clean
            accuracy.
        method: the target.
        measures: by which; with several it has to be so by each.
    """

    kind: Literal["best", "worst"]
    method: str
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = ("relative_asr",)

    @property
    def needs(self) -> tuple[str, ...]:
        """Targets it cannot do without."""
        return (self.method,)


def _with_task(columns: tuple[str, ...], field: str) -> tuple[str, ...]:
    for column in columns:
        _known(column, FILTER_COLUMNS, f"column of {field}")
    if "task" not in columns:
        raise ValueError(f"{field}: must hold task: rates of different tasks are not compared")
    return columns


KINDS: dict[str, type[Claim]] = {
    "rate": RateClaim,
    "paired": PairedClaim,
    "trend": TrendClaim,
    "best": ExtremeClaim,
    "worst": ExtremeClaim,
}

PUBLISHED: dict[str, tuple[str | float, ...]] = {"surrogate_role": ("expert", "pretrained")}
"""The surrogates of the published studies: the attacked task's own expert, and the pretrained model."""

BUILT_IN: tuple[Claim, ...] = (
    RateClaim(
        name="no_robustness",
        sentence="Merging gives no robustness: attacks that fool a surrogate fool merges about as often.",
        where=PUBLISHED,
        measure="relative_asr",
        expect="higher",
        against=1,
        margin=0.05,
    ),
    TrendClaim(
        name="stronger_more_vulnerable",
        sentence="Stronger merging is more vulnerable: relative ASR rises with clean accuracy.",
        where=PUBLISHED,
        by="clean_accuracy",
    ),
    PairedClaim(
        name="bias_mitigation",
        sentence="Mitigating representation bias makes merges more vulnerable: relative ASR rises with Surgery.",
        where=PUBLISHED,
        first={"correction": "surgery"},
        second={"correction": "none"},
        expect="higher",
    ),
    ExtremeClaim(
        name="averaging_worst",
        sentence="Weight averaging is the most vulnerable merge, though the weakest.",
        where=PUBLISHED,
        kind="worst",
        method="weight_averaging",
        measures=("relative_asr", "clean_accuracy"),
    ),
    RateClaim(
        name="poster_delta",
        sentence="ΔASR is mostly at or below 0: merges are fooled no more often than the surrogate.",
        where=PUBLISHED,
        measure="delta_asr",
        expect="lower",
        against=0,
    ),
    PairedClaim(
        name="poster_surgery",
        sentence="Stronger merging (with Surgery) lowers ASR or keeps it, within one percentage point.",
        where=PUBLISHED,
        measure="asr",
        first={"correction": "surgery"},
        second={"correction": "none"},
        expect="lower",
        margin=0.01,
    ),
    PairedClaim(
        name="poster_surrogate",
        sentence="Attacks made on the pretrained surrogate transfer worse than those on the fine-tuned one.",
        measure="asr",
        first={"surrogate_role": "expert"},
        second={"surrogate_role": "pretrained"},
        expect="higher",
    ),
)
"""Claims of the published study on 336 settings, and the three of its poster; of attacks made on `PUBLISHED`
alone, whatever other surrogates a study has."""


class ClaimFile(_Model):
    """A file of claims.

    Attributes:
        schema_version: of this format.
        include: built-in claims to judge too, by name; ``all`` for all of them.
        claims: one's own.
    """

    schema_version: Literal[1] = 1
    include: tuple[str, ...] = ()
    claims: tuple[Any, ...] = ()


def load_claims(path: Path) -> tuple[Claim, ...]:
    """The claims of a YAML file.

    Raises:
        UserError: it cannot be read, or a field is wrong; the message names it.
    """
    try:
        return parse_claims(read_mapping(path, "a file of claims"))
    except UserError as error:
        faults = (fault if fault.startswith(str(path)) else f"{path}: {fault}" for fault in error.faults)
        raise UserError(*faults) from error


def parse_claims(content: Mapping[str, Any]) -> tuple[Claim, ...]:
    """Claims from the fields of :class:`ClaimFile`.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    try:
        file = ClaimFile(**content)
    except ValidationError as error:
        raise UserError(*findings(error, ClaimFile.model_fields)) from error
    built_in = {claim.name: claim for claim in BUILT_IN}
    wanted = list(built_in) if "all" in file.include else list(file.include)
    faults = Faults()
    claims = []
    for name in wanted:
        with faults.collecting():
            if name not in built_in:
                raise UserError(f"include: unknown claim {name!r}{did_you_mean(name, ['all', *built_in])}")
            claims.append(built_in[name])
    for position, given in enumerate(file.claims):
        with faults.collecting():
            claims.append(_parse_claim(given, f"claims[{position}]"))
    faults.settle()
    names = [claim.name for claim in claims]
    if not claims:
        raise UserError("names no claim; give claims, a list, or include: [all]")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"claim {name!r} is given twice; give one another name")
    return tuple(claims)


def _parse_claim(given: object, where: str) -> Claim:
    if not isinstance(given, dict):
        raise UserError(f"{where}: must be a mapping with kind, name and sentence")
    kind = given.get("kind")
    if kind not in KINDS:
        raise UserError(
            f"{where}.kind: {'required, but not given' if kind is None else f'unknown kind {kind!r}'}"
            f"{did_you_mean(str(kind), KINDS)}"
        )
    model = KINDS[str(kind)]
    try:
        return model(**given)
    except ValidationError as error:
        raise UserError(*(f"{where}: {finding}" for finding in findings(error, model.model_fields))) from error
    except TypeError as error:  # a field's name that is no text
        raise UserError(f"{where}: a field's name must be text") from error


def check_claims(claims: Iterable[Claim], rates: pd.DataFrame) -> None:
    """Whether what claims name is in the data.

    Raises:
        UserError: a value of a filter, or a target, is not; the message names it.
    """
    built_in = set(map(id, BUILT_IN))
    for claim in claims:
        if id(claim) in built_in:
            continue  # of these, what the data lacks is said in the verdict
        for column, values in ((column, values) for part in claim.filters for column, values in part.items()):
            if column.endswith("_role"):
                continue
            if column == "epsilon":
                _check_budgets(claim.name, values, rates)
                continue
            known = [str(name) for name in rates[column].unique()]
            for value in values:
                if value not in known:
                    hint = did_you_mean(str(value), known)
                    raise UserError(f"claim {claim.name!r}: {column} {value!r} is not in the data{hint}")
        targets = [str(name) for name in rates["target"].unique()]
        for target in claim.needs:
            if target not in targets:
                raise UserError(
                    f"claim {claim.name!r}: target {target!r} is not in the data{did_you_mean(target, targets)}"
                )


def _check_budgets(claim: str, values: tuple[str | float, ...], rates: pd.DataFrame) -> None:
    known = rates["epsilon"].dropna().unique()
    for value in values:
        if not any(abs(float(value) - budget) < 1e-9 for budget in known):
            listed = ", ".join(f"{255 * budget:.3g}/255" for budget in sorted(known)) or "none"
            raise UserError(
                f"claim {claim!r}: epsilon {255 * float(value):.3g}/255 is not in the data (it has: {listed})"
            )
