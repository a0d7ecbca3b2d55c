"""What every field of a study file is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

from mergerisk.plain_data import unfit_text

RESERVED_TARGETS = ("expert", "pretrained")
"""What results call the targets that are no merge."""


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Model(BaseModel):
    """What a mapping of a study file becomes: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


FILES = "files"
"""Key of pydantic's context: whether what a study names has to be there; it has, unless this says otherwise."""


def looks(info: ValidationInfo) -> bool:
    """Whether what a study names has to be there, by the context of its validation (`FILES`)."""
    return not isinstance(info.context, dict) or bool(info.context.get(FILES, True))


_LONGEST_FOLDER = 200
"""Bytes; what is made beside a folder has a longer name than it, and file systems take 255."""


def check_folder_name(name: str, what: str) -> str:
    """The name, if a folder can be called so.

    Raises:
        ValueError: it cannot; ``what`` says which folder.
    """
    if not name.strip(" .") or set(name) & set("/\\") or unfit_text(name):
        raise ValueError(f"{what} is called so; give a name without slashes, got {name[:60]!r}")
    if len(name.encode()) > _LONGEST_FOLDER:
        raise ValueError(f"{what} is called so; give a name of at most {_LONGEST_FOLDER} bytes")
    return name


def no_twins(names: list[str], what: str) -> None:
    """See that no name is given twice.

    Args:
        names: of things of one kind, or labels.
        what: they are, in a message.

    Raises:
        ValueError: one is.
    """
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        hint = "; give one a label of its own" if what.endswith("label") else ""
        raise ValueError(f"{what} {twins[0]!r} is given twice{hint}")
