"""Hyper-parameters that differ between a model's layers: ``scaling: {"layers.0-5": 0.2, "*": 0.4}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, TypeVar

from pydantic import Field

from mergerisk.errors import UserError
from mergerisk.models.inside.blocks import blocks_in

T = TypeVar("T")

Scaling = float | Annotated[dict[str, float], Field(min_length=1)]
"""A number for all tensors, or one per pattern of their names."""

REST = "*"
"""The pattern of whatever no other one matches."""


def at(values: Mapping[str, T], name: str, what: str = "scaling") -> T:
    """The value of the one pattern that matches a tensor.

    A pattern is a part of names between dots: ``layers.0-5`` is in ``encoder.layers.3.mlp.weight``, ``layers.1``
    not in ``encoder.layers.10.mlp.weight``. Between its own dots stand numbers from ``0-5``, or names, in which
    ``*`` stands for anything. The order of patterns does not matter, since they must not overlap.

    Args:
        values: by pattern; that of :data:`REST` where no other one matches.
        name: of a tensor.
        what: the hyper-parameter, for messages.

    Raises:
        UserError: no pattern matches, or two do.
    """
    parts = name.split(".")
    found = [pattern for pattern in values if pattern != REST and _is_in(pattern.split("."), parts)]
    if len(found) > 1:
        raise UserError(f"{what}: {found[0]!r} and {found[1]!r} both match {name!r}; let one match each tensor")
    if not found and REST not in values:
        raise UserError(f"{what}: no pattern matches {name!r}; add {REST!r} for what the others leave")
    return values[found[0] if found else REST]


def single(scaling: Scaling) -> float:
    """The one number of a method that merges one tensor; see :meth:`mergerisk.merging.StateMerging.at`."""
    assert not isinstance(scaling, dict), "methods merge a tensor as at(name) says"
    return scaling


def check_patterns(method: object, names: Iterable[str]) -> None:
    """See that what a method says of layers is said of tensors that are merged, and of each once.

    Args:
        method: a dataclass of hyper-parameters.
        names: of the tensors that are merged.

    Raises:
        UserError: a pattern matches no tensor; or one as in :func:`at`.
    """
    values = getattr(method, "scaling", None)
    if not isinstance(values, Mapping):
        return
    split = {name: name.split(".") for name in names}
    for pattern in values:
        if pattern != REST and not any(_is_in(pattern.split("."), parts) for parts in split.values()):
            blocks = blocks_in(split)
            there = f"; the model's blocks are {blocks[0]} to {blocks[-1]}" if blocks else ""
            raise UserError(f"scaling: {pattern!r} matches no tensor{there}")
    for name in split:
        at(values, name)


def _is_in(pattern: list[str], parts: list[str]) -> bool:
    """Whether a pattern's parts follow one another among a name's."""
    return any(
        all(_fits(wanted, part) for wanted, part in zip(pattern, parts[start:], strict=False))
        for start in range(len(parts) - len(pattern) + 1)
    )


def _fits(wanted: str, part: str) -> bool:
    first, dash, last = wanted.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        return part.isdecimal() and int(first) <= int(part) <= int(last)
    return fnmatchcase(part, wanted)
