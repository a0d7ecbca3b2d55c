"""A merging method and a correction that mergerisk does not know of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from mergerisk.merging import Correction
from mergerisk.merging.states import TensorMerging
from mergerisk.models.inside.features import extract_features
from mergerisk.validation import hyperparameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergerisk.merging import Merged
    from mergerisk.models import Encoder, State
    from mergerisk.tasks import Images


@hyperparameters
class Median(TensorMerging):
    """Of every parameter the experts' median; the lower one of an even number."""

    def merge_tensor(self, pretrained: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        return torch.stack(list(experts)).median(dim=0).values


class Moved(nn.Module):
    """Features plus a vector."""

    def __init__(self, by: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("by", by)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.by.to(features)


@hyperparameters
class Shift(Correction):
    """Every task's features are moved by one vector, so that their mean is the expert's.

    Attributes:
        share: of the way to the expert's mean.
    """

    share: float = 1.0

    def fit_task(self, encoder: Encoder, expert: Encoder, images: Images, draws: torch.Generator) -> State:  # noqa: ARG002
        wanted, found = (extract_features(model, images).mean(dim=0) for model in (expert, encoder))
        return {"by": self.share * (wanted - found)}

    def apply(self, merged: Merged, parts: State) -> Merged:
        adapters = {name.rpartition("/")[0]: Moved(vector).eval() for name, vector in parts.items()}
        return replace(merged, adapters=adapters, parts=dict(parts))
