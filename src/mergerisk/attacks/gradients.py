"""Sizes of gradients, image by image."""

from __future__ import annotations

import torch

from mergerisk.errors import UserError


def normalised(gradient: torch.Tensor) -> torch.Tensor:
    """``gradient`` (N × C × H × W) over its mean absolute value per image.

    An all-zero gradient stays zero; 0/0 here would freeze the image for good.
    """
    # Not `vector_norm`, which takes several times as long.
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    return gradient / size.where(size > 0, 1.0)


def gradient_sizes(gradient: torch.Tensor) -> torch.Tensor:
    """N: the largest absolute value of each image's gradient.

    Raises:
        UserError: one is NaN or infinite.
    """
    sizes = gradient.abs().amax(dim=(1, 2, 3))
    broken = int((~torch.isfinite(sizes)).sum())
    if broken:
        raise UserError(f"the classifier's gradient is NaN or infinite for {broken} images; check its weights")
    return sizes
