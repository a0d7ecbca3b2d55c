"""Defenses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergerisk.registry import Entry, Registry

if TYPE_CHECKING:
    from mergerisk.defenses.defense import Defense

DEFENSES: Registry[type[Defense]] = Registry(
    "defense",
    "mergerisk.defenses",
    [
        Entry(
            "bit_depth",
            "mergerisk.defenses.bit_depth:BitDepth",
            "pixels rounded to a few levels before the model sees them",
            "arXiv 1704.01155",
        ),
    ],
)
"""Everything that ``mergerisk list defenses`` shows; plugins add to it."""


def create(name: str, /, **parameters: Any) -> Defense:
    """The defense called ``name`` with these hyper-parameters, checked.

    Raises:
        UserError: unknown name or hyper-parameter, or a value out of range.
    """
    defense: Defense = DEFENSES.create(name, parameters)
    return defense
