"""Hyper-parameters and study files are checked by pydantic; its findings become one line each."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from mergerisk.errors import Fault, Place, UserError, did_you_mean, located

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def hyperparameters(cls: type[T]) -> type[T]:
    """Decorator: a frozen keyword-only dataclass whose values are checked when it is made, by pydantic.

    Unknown names, wrong types, NaN and values out of a field's range raise ``pydantic.ValidationError``, a
    ``ValueError``.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: type[Any] = dataclass(cls, frozen=True, kw_only=True, config=config)
    return made


def parse_fraction(text: str) -> float:
    """``8/255``, ``1.5/255`` or ``0.03`` as a number.

    Raises:
        ValueError: it is none.
    """
    above, _, below = text.partition("/")
    try:
        return float(Fraction(above.strip()) / Fraction(below.strip() or 1))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"must be a number or a fraction such as 8/255, got {text!r}") from None


_PLAIN = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "dataclass_type"), "must be a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
"""What pydantic finds, in the words of a YAML file."""


def _place(location: Sequence[int | str]) -> Place:
    """A location without the names that pydantic gives to a union's branches."""
    starts, whole = ("constrained-", "tuple[", "literal["), {"float", "int", "str", "bool", "none"}
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
    message = (
        _PLAIN.get(finding["type"], finding["msg"])
        .removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
    )
    message = message[0].lower() + message[1:] if message[1:2].islower() else message
    given = finding["input"]
    shown = f", got {given!r}" if isinstance(given, str | int | float) and finding["type"] != "value_error" else ""
    return f"{message}{shown}"


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
