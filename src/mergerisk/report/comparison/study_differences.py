"""In which fields two studies, and the ways they were run, differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mergerisk.study import FinishedRun

ABSENT = "–"
_KEYS = ("label", "name")


@dataclass(frozen=True)
class FieldDifference:
    """A field and what either run has there; `ABSENT` where it lacks."""

    field: str
    a: str
    b: str


def differing_fields(a: FinishedRun, b: FinishedRun) -> tuple[FieldDifference, ...]:
    """Fields of the study first, then versions, device and revision; in the order of the one, then the other."""
    left, right = (dict(_fields(run)) for run in (a, b))
    members = [{_member(field) for field in side} for side in (left, right)]
    found: dict[str, FieldDifference] = {}
    for field in dict.fromkeys([*left, *right]):
        member = _member(field)
        missing = [bool(member) and member not in side for side in members]
        if any(missing):  # of a method or attack that a study lacks altogether, its name says enough
            found[member] = FieldDifference(member, *(ABSENT if gone else "has it" for gone in missing))
        elif left.get(field) != right.get(field):
            found[field] = FieldDifference(field, left.get(field, ABSENT), right.get(field, ABSENT))
    return tuple(found.values())


def _member(field: str) -> str:
    """``merging[ties]`` of ``merging[ties].parameters.scaling``; empty for a field that is in no list."""
    head, end, _ = field.rpartition("]")
    return head + end


def _fields(run: FinishedRun) -> Iterator[tuple[str, str]]:
    """Every leaf of a run's study and circumstances: its path, and its value as text."""
    yield from _flat("", run.study.model_dump(mode="json"))
    for name in ("versions", "device", "git_revision"):
        yield from _flat(f"run.{name}", run.record.get(name))


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings; members of a list of mappings are called by their label, not their place."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(f"{path}.{name}" if path else str(name), part)
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        for place, part in enumerate(value):
            yield from _flat(f"{path}[{_name(part, place)}]", part)
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield path, shown if len(shown) <= 200 else f"{shown[:199]}…"


def _name(part: Mapping[str, Any], place: int) -> str:
    return next((str(part[key]) for key in _KEYS if part.get(key)), str(place))
