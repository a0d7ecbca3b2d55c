"""A folder of images, one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mergerisk.tasks.digests import chosen_digest
from mergerisk.tasks.listed import ListedSource
from mergerisk.tasks.options import FolderOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.tasks.listing import Listing
    from mergerisk.tasks.options import NamedOptions


@dataclass(frozen=True)
class FolderSource(ListedSource):
    """A folder of class folders, perhaps within folders of splits."""

    options: FolderOptions

    options_class: ClassVar[type[NamedOptions]] = FolderOptions

    @classmethod
    def takes(cls, spec: str) -> bool:
        return Path(spec).is_dir()

    def content(self) -> Mapping[str, Any]:
        return {"folder": chosen_digest(self.choose(self.listing()), self.path)}

    def listing(self) -> Listing:
        from mergerisk.tasks.folders import list_folder

        return list_folder(self.path, self.options)
