"""Heads, adapters and the classifier they make together with an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from mergerisk.models.encoder import Encoder


_SHORTEST = 1e-12
"""Features shorter than this are divided by it instead of by their length."""


class Head(nn.Module):
    """A frozen linear layer from features to logits; every encoder of the same width can carry it.

    Args:
        weight: classes × width.
        bias: classes.
        normalize: whether features are first divided by their Euclidean length, as CLIP's are. Features of length
            zero stay zero, and their gradient is finite.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        with torch.inference_mode(False):  # what carries the head may be attacked later
            self.register_buffer("weight", weight.detach().clone())
            self.register_buffer("bias", bias.detach().clone())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features, N × width → logits, N × classes."""
        if self.normalize:
            # The usual 1e-12 is zero in half precision.
            features = F.normalize(features, dim=-1, eps=max(_SHORTEST, torch.finfo(features.dtype).tiny))
        # `to` costs nothing where they agree, and lets one head serve encoders on any device.
        return F.linear(features, self.weight.to(features), self.bias.to(features))


class Classifier(nn.Module):
    """Pixels in [0, 1] → logits: encoder, then an adapter if the merge has one, then the task's head."""

    def __init__(self, encoder: Encoder, head: Head, adapter: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter
        self.head = head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N × 3 × H × W in [0, 1] → logits, N × classes."""
        features = self.encoder(images)
        if self.adapter is not None:
            features = self.adapter(features)
        logits: torch.Tensor = self.head(features)
        return logits
