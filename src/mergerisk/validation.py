"""Hyper-parameters and study files are checked by pydantic; its findings become one line each."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import asdict, fields, is_dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, TypeVar, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.dataclasses import dataclass

from mergerisk.errors import Fault, Place, UserError, did_you_mean, located

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def hyperparameters(cls: type[T]) -> type[T]:
    """Decorator: a frozen keyword-only dataclass whose values are checked when it is made, by pydantic.

    Unknown names, wrong types, NaN, numbers that no machine can compute with, and values out of a field's range
    raise ``pydantic.ValidationError``, a ``ValueError``.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    cls._holdable = model_validator(mode="after")(_check_holdable)  # type: ignore[attr-defined]
    made: type[Any] = dataclass(cls, frozen=True, kw_only=True, config=config)
    return made


def as_parameters(made: Any) -> dict[str, Any]:
    """Every hyper-parameter of such a dataclass by name, as resolved studies and keys have them.

    Those that a class got when results of it were kept already, which it names in ``added``, are left out where
    all of them are at their defaults: what they add is then switched off, and the results are the same.
    """
    added: frozenset[str] = getattr(type(made), "added", frozenset())
    used = any(one.name in added and getattr(made, one.name) != one.default for one in fields(made))
    return {name: value for name, value in asdict(made).items() if used or name not in added}


_LARGEST_COUNT, _LARGEST_SEED, _LARGEST = 2**32, 2**64, 1e30
"""Beyond them no hyper-parameter means anything to a machine that computes in single precision; derived seeds have
64 bits."""

_OF_TENSORS = {"scaling", "coefficients"}
"""What tensors are multiplied by: how large it may be is known with their precision, and checked then."""


def _check_holdable(made: T) -> T:
    """Whether every number among a dataclass's values is one that a machine can compute with."""
    for field in fields(made):  # type: ignore[arg-type]
        given = getattr(made, field.name)
        most = _LARGEST_SEED if field.name == "seed" else _LARGEST_COUNT
        for value in given if isinstance(given, tuple | list) else (given,):
            if isinstance(value, int) and abs(value) > most:
                raise ValueError(f"{field.name}: must be at most {most}, got {_shown(value)}")
            if isinstance(value, float) and abs(value) > _LARGEST and field.name not in _OF_TENSORS:
                raise ValueError(f"{field.name}: must be at most {_LARGEST:g}, got {value:g}")
    return made


Count = Annotated[int, Field(gt=0, le=10**9)]
"""How many of something, one at least."""

ImageSize = Annotated[int, Field(gt=0, le=2048)]
"""The side of an image in pixels; models that see more than 2048 are too large for what is made with them here."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A part of something, or a probability: a number in [0, 1]."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A number above 0."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A number, 0 or more."""


_NUMBER = re.compile(r"[^eE]*(?:[eE]([+-]?\d{1,3}))?")
_LONGEST_NUMBER = 100


def parse_fraction(text: str) -> float:
    """``8/255``, ``1.5/255`` or ``0.03`` as a number.

    Raises:
        ValueError: it is none, or one that floating point cannot hold.
    """
    above, _, below = (part.strip() for part in text.partition("/"))
    # Worked out exactly, digit by digit: an exponent of a billion would take for ever.
    short = len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(above) and _NUMBER.fullmatch(below)
    try:
        exact = Fraction(above) / Fraction(below or 1) if short else None
        number = math.nan if exact is None else float(exact)
    except (ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if math.isnan(number) or (exact and abs(number) < sys.float_info.min):
        raise ValueError(f"must be a number or a fraction such as 8/255, got {_shown(text)}")
    return number


SMALLEST_EPSILON, LARGEST_EPSILON = 1e-9, 1e4
"""Budgets: below, no pixel changes in single precision; above, no two pictures are so far apart, in L2 either."""


def check_epsilon(value: float) -> float:
    """A budget in pixel units that means something.

    Raises:
        ValueError: it does not.
    """
    if not value > 0:
        raise ValueError(f"must be above 0, got {value:g}")
    if not SMALLEST_EPSILON <= value <= LARGEST_EPSILON:
        raise ValueError(f"must be from {SMALLEST_EPSILON:g} to {LARGEST_EPSILON:g}, got {value:g}")
    return value


def _fraction(value: object) -> object:
    """``"2/255"`` as a number; anything else as it is."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number or a fraction such as 8/255, got {value}")  # noqa: TRY004
    return parse_fraction(value) if isinstance(value, str) else value


_WRITTEN_EPSILON = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9.eE+-]+\s*(/\s*[0-9.eE+-]+\s*)?$"},
    ]
}

Epsilon = Annotated[
    float,
    BeforeValidator(_fraction),
    Field(allow_inf_nan=False),
    AfterValidator(check_epsilon),
    WithJsonSchema(_WRITTEN_EPSILON),
]
"""A budget in pixel units, above 0; at most 1 if it is an L∞ one."""


def _shown(value: object) -> str:
    text = f"a whole number of {value.bit_length()} bits" if _is_huge(value) else repr(value)
    return text if len(text) <= _LONGEST_NUMBER else f"{text[:_LONGEST_NUMBER]}…"


def _is_huge(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value.bit_length() > 256


_PLAIN = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "dataclass_type"), "must be a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is beyond what a whole number may be",
    "finite_number": "must be a finite number",
    "string_unicode": "holds half of a character",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
"""What pydantic finds, in the words of a YAML file."""


def _place(location: Sequence[int | str]) -> Place:
    """A location without the names that pydantic gives to a union's branches."""
    starts, whole = ("constrained-", "tuple[", "dict[", "literal["), {"float", "int", "str", "bool", "none"}
    return Place(
        tuple(
            part
            for i, part in enumerate(location)
            if i == 0 or isinstance(part, int) or not (part.startswith(starts) or part in whole)
        )
    )


def findings(error: ValidationError, known: Iterable[str] = ()) -> tuple[Fault, ...]:
    """What pydantic found, a fault for every place: field, what is wrong, what was given."""
    every = [(_place(finding["loc"]), finding) for finding in error.errors(include_url=False)]
    found: dict[Place, Fault] = {}
    for where, finding in every:
        path = where.path
        # A list whose only item is wrong is also found to be empty, or to be no number where one would do too.
        if not any(other.path[: len(path)] == path != other.path for other, _ in every if path):
            found.setdefault(where, _fault(finding, where, known))
    return tuple(found.values())


def first_finding(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first of :func:`findings`, where there is room for one."""
    return str(findings(error, known)[0])


def _fault(finding: ErrorDetails, where: Place, known: Iterable[str]) -> Fault:
    raised = finding.get("ctx", {}).get("error")
    if not where.path and isinstance(raised, UserError):
        return raised.found[0]  # of the whole, which knows the place itself
    return Fault(_in_words(finding, known), where if where.path else None)


def _in_words(finding: ErrorDetails, known: Iterable[str]) -> str:
    if finding["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        # ``known`` are the outermost fields; of a nested one others are possible.
        near = did_you_mean(str(finding["loc"][-1]), known) if known and len(finding["loc"]) == 1 else ""
        return f"unknown field{near}"
    if finding["type"] in {"missing", "missing_keyword_only_argument"}:
        return "required, but not given"
    if finding["type"] == "too_long":
        return f"at most {finding['ctx']['max_length']} values, got {finding['ctx']['actual_length']}"
    message = (
        _PLAIN.get(finding["type"], finding["msg"])
        .removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
    )
    message = message[0].lower() + message[1:] if message[1:2].islower() else message
    given = finding["input"]
    given_plainly = isinstance(given, str | int | float) and finding["type"] != "value_error"
    return f"{message}, got {_shown(given)}" if given_plainly else message


def construct(cls: type[T], parameters: Mapping[str, Any], where: str | Place) -> T:
    """``cls(**parameters)`` with pydantic's findings turned into a one-line :class:`UserError`."""
    try:
        return cls(**parameters)
    except ValidationError as error:
        known: Iterable[str] = getattr(cls, "model_fields", ())
        if is_dataclass(cls):
            known = [field.name for field in fields(cls)]
        with located(where):
            raise UserError(*findings(error, known)) from error
