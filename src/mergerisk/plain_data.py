"""What a study, an audit, claims or a recipe are made of, before anybody asks what it means.

Mappings with texts for keys, lists, texts, numbers: so deep, so many and so large that a machine can hold them.
Nothing behind has to fear a text that is no Unicode, a number that fits nowhere, or a name that is no file's.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from mergerisk.errors import Fault, Place, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_VALUES = 200_000
"""Values in one document, those of an alias as often as it stands there."""

DEEPEST = 40
"""Mappings and lists within each other."""

_LONGEST_TEXT = 10_000
_LONGEST_NAME = 255
"""Bytes of one name, which file systems take."""

_PROSE = {"description", "sentence", "templates", "class_names"}
"""Fields whose texts are no names and no paths."""

_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_BETWEEN_NAMES = re.compile(r"[\s/]+")


def unfit_text(text: str) -> str:
    """What a text holds that no name, path or sentence may: control characters, halves of characters; empty for
    nothing."""
    found = _UNFIT.search(text)
    if found is None:
        return ""
    kind = "half of a character" if found[0] >= "\ud800" else "a character that cannot be printed"
    return f"holds {kind}, U+{ord(found[0]):04X}"


def unfit_name(text: str) -> str:
    """What is wrong with a text as a name or a path; empty for nothing."""
    longest = max((len(part.encode("utf-8", "replace")) for part in _BETWEEN_NAMES.split(text)), default=0)
    if longest > _LONGEST_NAME:
        return f"holds a name of {longest} bytes; file systems take {_LONGEST_NAME}"
    return unfit_text(text)


def check_plain(content: Any) -> None:
    """Whether plain data is what a machine can hold; objects of other types are left to those who know them.

    Raises:
        UserError: a key that is no text, a text or a number that is none of a file's, or too many of them; the
            message begins with the place.
    """
    for count, (place, value, depth) in enumerate(_walk(content)):
        if count >= MOST_VALUES:
            raise UserError(f"more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise UserError(Fault(f"nested more than {DEEPEST} deep", _named(place[:3])))
        fault = _fault(value, prose=not _PROSE.isdisjoint(place))
        if fault:
            raise UserError(Fault(fault, _named(place) if place else None))


def _walk(content: Any) -> Iterator[tuple[tuple[int | str, ...], Any, int]]:
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        yield place, value, len(place)
        if isinstance(value, dict):
            waiting += [((*place, key), part) for key, part in reversed(value.items())]
        elif isinstance(value, list | tuple):
            waiting += [((*place, position), value[position]) for position in reversed(range(len(value)))]


def _named(path: tuple[int | str, ...]) -> Place:
    return Place(tuple(part if isinstance(part, int) or len(part) <= 60 else f"{part[:60]}…" for part in path))


def _fault(value: Any, *, prose: bool) -> str:
    match value:
        case dict():
            return next(filter(None, map(_key_fault, value)), "")
        case str():
            return _text_fault(value, prose=prose)
        case bool():
            return ""
        case int():
            return "" if -(2**63) <= value < 2**63 else "is beyond what a whole number may be (64 bits)"
        case float():
            return "" if math.isfinite(value) else f"must be a finite number, got {value}"
        case _:
            return ""


def _key_fault(key: object) -> str:
    if not isinstance(key, str):
        return f"key {key!r} must be text, as '{key}'"
    fault = unfit_name(key)
    return f"key {key[:60]!r} {fault}" if fault else ""


def _text_fault(text: str, *, prose: bool) -> str:
    if len(text) > _LONGEST_TEXT:
        return f"{len(text)} characters; at most {_LONGEST_TEXT:,}"
    return unfit_text(text) if prose else unfit_name(text)
