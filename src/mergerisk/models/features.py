"""Features of many images, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from mergerisk.models.encoder import Encoder
    from mergerisk.tasks.images import Images


def extract_features(encoder: Encoder, images: Images, *, batch_size: int = 256) -> torch.Tensor:
    """Features of ``images`` (N × 3 × H × W in [0, 1]) as N × width, on the CPU, without a graph."""
    device = encoder.mean.device
    with torch.no_grad():
        return torch.cat([encoder(batch.to(device)).cpu() for batch in images.split(batch_size)])
