"""What the store holds and gives back, and how it says that it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mergerisk.row_files import RowFile, Written

Arrays = dict[str, "NDArray[Any]"]
"""A payload: arrays by name."""


class LostArtefactError(Exception):
    """An artefact cannot be read, and can be made again.

    Attributes:
        key: the artefact's.
    """

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"artefact {key} {what}")
        self.key = key


class DamagedArtefactError(LostArtefactError):
    """An artefact is not what was written; it was moved aside."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "is damaged and was moved aside")


class MissingArtefactError(LostArtefactError, KeyError):
    """There is no such artefact: it was never made, or another process has moved it aside."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "is not in the store")


@dataclass(frozen=True)
class Artefact:
    """What the store gives back.

    Attributes:
        arrays: the payload.
        info: small facts kept with it.
        provenance: how it came about: versions, device, seconds.
        rows: what of the payload is too large for memory, to be read by rows.
    """

    arrays: Arrays
    info: Mapping[str, Any]
    provenance: Mapping[str, Any]
    rows: Mapping[str, RowFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Spooled:
    """An array on its way into an artefact; see :meth:`Store.spool`.

    Attributes:
        path: where it waits.
        written: its shape, dtype and checksum.
    """

    path: Path
    written: Written
