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
        Entry("jpeg", "mergerisk.defenses.jpeg:JPEG", "pixels compressed and read again", "arXiv 1711.00117"),
        Entry("median", "mergerisk.defenses.median:Median", "medians of small windows", "arXiv 1704.01155"),
        Entry(
            "resize_pad",
            "mergerisk.defenses.resize_pad:ResizePad",
            "a little smaller, at a random place on black",
            "arXiv 1711.01991",
        ),
        Entry(
            "smoothing",
            "mergerisk.defenses.smoothing:Smoothing",
            "the majority under noise, with a certified radius",
            "arXiv 1902.02918",
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
