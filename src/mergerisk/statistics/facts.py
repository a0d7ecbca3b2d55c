"""What is found, as data: a kind with its values, for which :mod:`mergerisk.report.fact_words` has words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Fact:
    """One thing that was found.

    Attributes:
        kind: which.
        values: its values by name: numbers, names of models and measures, units, other facts.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


def fact(kind: str, **values: Any) -> Fact:
    """A fact, its values by keyword."""
    return Fact(kind, values)
