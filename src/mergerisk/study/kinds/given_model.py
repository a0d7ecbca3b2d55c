"""A model that was made elsewhere: an expert, a public ingredient, an outsider, or a merge to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergerisk.study.keyed import unkeyed
from mergerisk.study.kinds.arrays import to_arrays
from mergerisk.study.kinds.results import ModelStage
from mergerisk.study.stage import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.store.keys import Json
    from mergerisk.study.backbone import Backbone
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class GivenModel(ModelStage):
    """A model of the backbone's architecture, read; its own form is kept where it is not the backbone's.

    Attributes:
        backbone: what it was made from.
        identity: what it is told by: digests of its files, or a commit.
        file: folder, file or hub id.
    """

    kind: ClassVar[str] = "expert"
    noun: ClassVar[str] = "fine-tune experts"
    version: ClassVar[int] = 3
    rank: ClassVar[int] = 2

    backbone: Backbone
    identity: Mapping[str, Json]
    file: str = unkeyed()

    def run(self, bench: Workbench) -> Result:
        """The encoder's parameters by name, and its own form where it differs from the base's."""
        from mergerisk.models.sources.siblings import read_sibling

        found = read_sibling(
            bench.base(self.backbone),
            self.file,
            image_size=self.backbone.image_size,
            preprocessing=self.backbone.preprocessing,
        )
        return Result(to_arrays(found.state), {"form": found.form.to_plain()} if found.form else {})
