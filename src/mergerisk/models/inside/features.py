"""Features of many images, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mergerisk.models.core.checks import precision_named
from mergerisk.models.inside.hooks import evaluating
from mergerisk.randomness import drawing
from mergerisk.tasks.images import check_pixels

if TYPE_CHECKING:
    from mergerisk.models.core.encoder import Encoder
    from mergerisk.tasks.images import Images


def extract_features(encoder: Encoder, images: Images, *, batch_size: int = 256, seed: int = 0) -> torch.Tensor:
    """Features of ``images`` (N × 3 × H × W in [0, 1]) as N × width, on the CPU, without a graph.

    The encoder is in evaluation mode meanwhile. One that draws from PyTorch's global generator draws from
    ``seed``.

    Raises:
        UserError: a pixel is out of range, or the encoder's weights are of another precision than the images,
            which it does not convert.
    """
    check_pixels(images)
    device = encoder.mean.device
    # Not inference mode: what is learnt on the features may be differentiated.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        evaluating(encoder),
        drawing(seed, "features", device=device),
        precision_named(encoder, images[:0], "the encoder"),
    ):
        return torch.cat([encoder(batch.to(device)).cpu() for batch in images.split(batch_size)])
