"""A diagnostic that mergerisk does not know of."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mergerisk.causes import Column, ImageCause, Logits, stated
from mergerisk.causes.given import Need
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes import Probe, Seen, Values


@hyperparameters
class Lead(ImageCause):
    """How far the target's first class is ahead of its second."""

    name: ClassVar[str] = "lead"
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})
    columns: ClassVar[tuple[Column, ...]] = (Column("lead", "logits", 0.0, None, "the target is harder to fool"),)

    def of_target(self) -> tuple[Probe, ...]:
        return (Logits(),)

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        first, second = seen.target[Logits()]["logits"].topk(2, dim=1).values.unbind(dim=1)
        return {"lead": stated(first - second)}
