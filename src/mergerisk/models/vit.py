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


def class_token_resized(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The same, for images of another size than the backbone was pretrained on: its position embeddings are
    interpolated (bicubic) to their grid of patches."""
    tokens: torch.Tensor = backbone(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    return tokens[:, 0]
