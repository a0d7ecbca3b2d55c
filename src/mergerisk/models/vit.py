"""transformers' vision transformers as backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def class_token(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Normalised pixels, N × 3 × S × S → the class token after the last layer norm, N × width."""
    tokens: torch.Tensor = backbone(pixel_values=pixels).last_hidden_state
    return tokens[:, 0]
