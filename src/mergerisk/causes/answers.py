"""What a model says of the clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from mergerisk.causes.probe import Probe, Reads
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from torch import nn

    from mergerisk.causes.probe import Batch, Parts


@hyperparameters
class Logits(Probe):
    """``logits``, N × classes."""

    reads: ClassVar[frozenset[Reads]] = frozenset({"logits"})

    def measure(self, model: nn.Module, batch: Batch) -> Parts:
        with torch.no_grad():
            return {"logits": model(batch.images)}
