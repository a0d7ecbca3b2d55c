"""Spatial operations on batches, as matrix products along rows and columns.

A separable filter of an H × W image is ``A X Bᵀ``, with A (H × H) acting on rows and B (W × W) on columns.
"""

from __future__ import annotations

import torch


def gaussian_blur(images: torch.Tensor, kernel_size: int, sigma: float) -> torch.Tensor:
    """Convolve each channel (N × C × H × W) with a normalised Gaussian, zero padding, same size.

    The one-dimensional kernel is exp(−t²/2) at ``kernel_size`` points t from −sigma to sigma; the image's is
    its outer product, so that two banded products equal the convolution.
    """
    t = torch.linspace(-sigma, sigma, kernel_size, dtype=torch.float64)
    kernel = torch.exp(-t.square() / 2)
    kernel = kernel / kernel.sum()
    rows, columns = (_band(kernel, size).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.T


def _band(kernel: torch.Tensor, size: int) -> torch.Tensor:
    """size × size; row i holds the kernel centred on column i."""
    offsets = torch.arange(size) - torch.arange(size)[:, None] + len(kernel) // 2
    inside = (offsets >= 0) & (offsets < len(kernel))
    return torch.where(inside, kernel[offsets.clamp(0, len(kernel) - 1)], 0.0)


def resize_and_pad(
    images: torch.Tensor, scales: torch.Tensor, top: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """Shrink each image (N × C × H × W) by its own scale and place it on black of the same size.

    Args:
        images: the batch.
        scales: N, in (0, 1]: the share of the side that is kept, rounded to whole pixels.
        top: N, in [0, 1): where in the free rows the image is placed.
        left: N, in [0, 1): where in the free columns.

    Returns:
        Bilinear (half-pixel centres, no antialiasing) as ``torch.nn.functional.interpolate`` does it, then
        zero padding. A scale of 1 returns the image exactly.
    """
    height, width = images.shape[-2:]
    rows = _placement(height, (scales * height).round(), top)
    columns = _placement(width, (scales * width).round(), left)
    return rows[:, None] @ images @ columns[:, None].mT


def _placement(side: int, sizes: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """N × side × side: maps a row of ``side`` pixels to ``sizes`` pixels, offset into ``side``."""
    sizes = sizes.clamp(min=1)[:, None]
    offset = (place[:, None] * (side - sizes + 1)).floor()
    output = torch.arange(side, device=sizes.device, dtype=sizes.dtype) - offset
    inside = (output >= 0) & (output < sizes)
    source = ((output + 0.5) * (side / sizes) - 0.5).clamp(0, side - 1)
    first = source.floor()
    weight = source - first
    second = (first + 1).clamp(max=side - 1)
    matrix = torch.zeros(len(sizes), side, side, device=sizes.device, dtype=sizes.dtype)
    matrix.scatter_add_(2, first.long()[..., None], ((1 - weight) * inside)[..., None])
    matrix.scatter_add_(2, second.long()[..., None], (weight * inside)[..., None])
    return matrix
