"""Ingredients whose task vectors are changed before they are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergerisk.study.keyed import Keyed

if TYPE_CHECKING:
    from mergerisk.merging import LazyExperts
    from mergerisk.models import Encoder


@dataclass(frozen=True, kw_only=True)
class Changed(Keyed):
    """What is done to every ingredient's task vector; see :func:`mergerisk.merging.changed_experts`.

    Attributes:
        change: which change.
        block: that is disordered, from 0; None of other changes.
        seed: of what is drawn.
    """

    kind: ClassVar[str] = "changed"

    change: Literal["placebo", "shuffled_blocks"]
    block: int | None
    seed: int

    def apply(self, base: Encoder, experts: LazyExperts) -> LazyExperts:
        """The experts, changed."""
        from mergerisk.merging import Placebo, ShuffledBlock, changed_experts

        change = Placebo() if self.block is None else ShuffledBlock(block=self.block)
        return changed_experts(base, experts, change, seed=self.seed)
