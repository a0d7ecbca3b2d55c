"""transformers' vision transformers as backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mergerisk.models.inside.class_token import class_token_alone

if TYPE_CHECKING:
    from torch import nn


def class_token(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Normalised pixels, N × 3 × S × S → the class token after the last layer norm, N × width."""
    with class_token_alone(backbone):
        tokens: torch.Tensor = backbone(pixel_values=pixels).last_hidden_state
    return tokens[:, 0]


def class_token_resized(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The same, for images of another size than the backbone was pretrained on: its position embeddings are
    interpolated (bicubic) to their grid of patches."""
    with class_token_alone(backbone):
        tokens: torch.Tensor = backbone(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    return tokens[:, 0]


def mean_token(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The mean of all tokens after the last layer norm, N × width: of backbones without a class token."""
    tokens: torch.Tensor = backbone(pixel_values=pixels).last_hidden_state
    return tokens.mean(dim=1)


def mean_token_resized(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The same, with position embeddings interpolated to another grid of patches."""
    tokens: torch.Tensor = backbone(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    return tokens.mean(dim=1)


def class_token_unmasked(backbone: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The class token of a masked autoencoder that is shown every patch, in their order.

    Its encoder shuffles patches by random noise; noise that rises leaves them where they are. Position embeddings
    are interpolated to whatever grid of patches there is.
    """
    config: Any = backbone.config
    patches = (pixels.shape[-1] // config.patch_size) ** 2
    noise = torch.arange(patches, dtype=torch.float32, device=pixels.device).expand(len(pixels), patches)
    hidden, config.mask_ratio = config.mask_ratio, 0.0
    try:
        with class_token_alone(backbone):
            output: Any = backbone(pixel_values=pixels, noise=noise, interpolate_pos_encoding=True)
    finally:
        config.mask_ratio = hidden
    tokens: torch.Tensor = output.last_hidden_state
    return tokens[:, 0]
