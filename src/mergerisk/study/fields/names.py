"""What names a model or data in a study file: a field's type says so, once, and everything else reads it there.

While a file is read, a relative path among these names is placed, that is, made absolute; see :class:`Placing`.
Afterwards :mod:`mergerisk.study.named_sources` finds them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from mergerisk.study.paths import placed, placed_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Kind = Literal["backbone", "model", "head", "data"]
"""``backbone``: what :func:`mergerisk.load_encoder` takes; ``model``: one of the backbone's form, or that is read
into it; ``head``: a classifier, or a file with a linear layer; ``data``: a task."""


@dataclass(frozen=True)
class Names:
    """Marks a field, or the values of a mapping or a list, that name a model or data."""

    kind: Kind


@dataclass(frozen=True)
class Placing:
    """Key and value of pydantic's context while a file is read whose relative paths are placed.

    Attributes:
        folder: where they start.
        given: what was placed, as the file has it; filled while it is read.
    """

    folder: Path
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, info: ValidationInfo) -> Placing | None:
        """That of a validation; None where paths stay as they are."""
        found = info.context.get(cls) if isinstance(info.context, dict) else None
        return found if isinstance(found, cls) else None

    def place(self, spec: str, how: Callable[[Path, str], str] = placed) -> str:
        """A name with the path in it placed."""
        found = how(self.folder, spec)
        if found != spec:
            self.given[found] = spec
        return found


def _place(spec: str, info: ValidationInfo) -> str:
    placing = Placing.of(info)
    return spec if placing is None else placing.place(spec)


def _place_task(spec: str, info: ValidationInfo) -> str:
    placing = Placing.of(info)
    return spec if placing is None else placing.place(spec, placed_task)


_Path = Annotated[str, Field(min_length=1), AfterValidator(_place)]

BackboneName = Annotated[_Path, Names("backbone")]
ModelName = Annotated[_Path, Names("model")]
HeadName = Annotated[_Path, Names("head")]

TaskName = Annotated[str, Field(min_length=1), AfterValidator(_place_task)]
"""What a task is called, or where it lies; the task as a whole, with its options, is what names data."""
