"""How sure the two models are of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.answers import Logits
from mergerisk.causes.cause import ImageCause
from mergerisk.causes.given import Need
from mergerisk.causes.result import Column, Values, stated
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mergerisk.causes.cause import Seen
    from mergerisk.causes.probe import Probe


@hyperparameters
class Confidence(ImageCause):
    """The _entropy −Σ p log p of the softmax of the clean image's logits, in nats, in [0, log classes], of
    surrogate and target; its mean over images is what DisTaC compares (2025, arXiv 2508.01148).

    A large value is a model that is *not* sure. A surrogate that is very sure has gradients that saturate.
    """

    name: ClassVar[str] = "confidence"
    needs: ClassVar[frozenset[Need]] = frozenset({"surrogate", "images"})
    columns: ClassVar[tuple[Column, ...]] = (
        Column("entropy_surrogate", "nats", 0.0, None, "gradients saturate less, so attacks transfer more"),
        Column("entropy_target", "nats", 0.0, None, "the target is nearer to its boundaries, easier to fool"),
    )

    def of_surrogate(self) -> tuple[Probe, ...]:
        return (Logits(),)

    def of_target(self) -> tuple[Probe, ...]:
        return (Logits(),)

    def compare(self, seen: Seen) -> Mapping[str, Values]:
        sides = {"surrogate": seen.surrogate, "target": seen.target}
        return {f"entropy_{side}": stated(_entropy(known[Logits()]["logits"])) for side, known in sides.items()}


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """float64, N: the softmax _entropy of logits, N × classes, in nats."""
    logs = logits.double().log_softmax(dim=1)
    found: torch.Tensor = torch.special.entr(logs.exp()).sum(dim=1)
    return found
