"""Arrays in an ``.npz`` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergerisk.tasks.digests import file_digest
from mergerisk.tasks.listed import ListedSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.arrays import TaskArrays
    from mergerisk.tasks.listing import Listing


@dataclass(frozen=True)
class NpzSource(ListedSource):
    """An ``.npz`` file. Its arrays come whole, unless options choose among its images."""

    @classmethod
    def takes(cls, spec: str) -> bool:
        return Path(spec).suffix == ".npz"

    def content(self) -> Mapping[str, Any]:
        return {"sha256": file_digest(self.path)}

    def identity(self) -> Mapping[str, Any]:
        said = self.options.content()
        return {**self.content(), "options": said} if said else self.content()  # nothing is decoded

    def listing(self) -> Listing | None:
        from mergerisk.tasks.npz import list_npz

        return list_npz(self.path) if self.options.content() else None

    def arrays(self) -> TaskArrays:
        from mergerisk.tasks.npz import read_npz

        return super().arrays() if self.options.content() else read_npz(self.path)
