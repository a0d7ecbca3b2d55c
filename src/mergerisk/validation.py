"""Hyper-parameters and study files are checked by pydantic; its findings become one line each."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from mergerisk.errors import UserError, did_you_mean

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


def field_path(location: Iterable[int | str]) -> str:
    """``('merging', 2, 'scaling')`` as ``merging[2].scaling``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _place(location: Sequence[int | str]) -> Sequence[int | str]:
    """A location without the names that pydantic gives to a union's branches."""
    starts, whole = ("constrained-", "tuple[", "literal["), {"float", "int", "str", "bool", "none"}
    return [
        part
        for i, part in enumerate(location)
        if i == 0 or isinstance(part, int) or not (part.startswith(starts) or part in whole)
    ]


def findings(error: ValidationError, known: Iterable[str] = ()) -> tuple[str, ...]:
    """What pydantic found, a line for every place: field, what is wrong, what was given."""
    every = [(_place(finding["loc"]), finding) for finding in error.errors(include_url=False)]
    found: dict[str, str] = {}
    for place, finding in every:
        # A list whose only item is wrong is also found to be empty, or to be no number where one would do too.
        if not any(other[: len(place)] == place != other for other, _ in every if place):
            found.setdefault(field_path(place), _in_words(finding, known))
    return tuple(found.values())


def first_finding(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first of :func:`findings`, where there is room for one."""
    return findings(error, known)[0]


def _in_words(finding: ErrorDetails, known: Iterable[str]) -> str:
    path = field_path(_place(finding["loc"]))
    if finding["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        # ``known`` are the outermost fields; of a nested one others are possible.
        near = did_you_mean(str(finding["loc"][-1]), known) if known and len(finding["loc"]) == 1 else ""
        return f"{path}: unknown field{near}"
    if finding["type"] in {"missing", "missing_keyword_only_argument"}:
        return f"{path}: required, but not given"
    message = (
        _PLAIN.get(finding["type"], finding["msg"])
        .removeprefix("Value error, ")
        .removeprefix("Assertion failed, ")
    )
    message = message[0].lower() + message[1:] if message[1:2].islower() else message
    given = finding["input"]
    shown = f", got {given!r}" if isinstance(given, str | int | float) and finding["type"] != "value_error" else ""
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def construct(cls: type[T], parameters: Mapping[str, Any], where: str) -> T:
    """``cls(**parameters)`` with pydantic's findings turned into a one-line :class:`UserError`."""
    try:
        return cls(**parameters)
    except ValidationError as error:
        known: Iterable[str] = getattr(cls, "model_fields", ())
        if is_dataclass(cls):
            known = [field.name for field in fields(cls)]
        raise UserError(*(f"{where}: {finding}" for finding in findings(error, known))) from error
