"""Experts and merges of another base than the study's: one that a defense trained before they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergerisk.study.kinds.expert import Expert
from mergerisk.study.kinds.merge import Merge

if TYPE_CHECKING:
    from mergerisk.models import Encoder, State
    from mergerisk.study.keyed import Input
    from mergerisk.study.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class ExpertFromBase(Expert):
    """An expert; see :class:`~mergerisk.study.kinds.expert.Expert`.

    Attributes:
        base: what is fine-tuned.
    """

    base: Input[State]

    def start(self, bench: Workbench) -> Encoder:
        """The trained base."""
        return bench.model(self.backbone, self.base).encoder


@dataclass(frozen=True, kw_only=True)
class MergeFromBase(Merge):
    """A merge; see :class:`~mergerisk.study.kinds.merge.Merge`.

    Attributes:
        base: θ0.
    """

    base: Input[State]

    def start(self, bench: Workbench) -> Encoder:
        """The trained base."""
        return bench.model(self.backbone, self.base).encoder
