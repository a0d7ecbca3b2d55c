"""A merge of ingredients that something is changed about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.study.kinds.merge import Merge

if TYPE_CHECKING:
    from mergerisk.merging import LazyExperts
    from mergerisk.study.changed import Changed
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class MergeChanged(Merge):
    """What such a merge can be restored from; see :class:`~mergerisk.study.kinds.merge.Merge`.

    Attributes:
        changed: what is done to the ingredients.
    """

    changed: Changed

    def experts(self, bench: Workbench) -> LazyExperts:
        """The experts, changed as the intervention says."""
        return self.changed.apply(bench.base(self.backbone), super().experts(bench))
